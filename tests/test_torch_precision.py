"""Tests that autocast and TF32 do not affect measurements, and that they stay as the user set."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest

import deepdefense as dd
from deepdefense.seam.training_contract import Losses, training_backend
from torch_models import DEFENSES, build_network, draw_batch, nn, torch

pytestmark = pytest.mark.only("torch")


@pytest.fixture
def model() -> nn.Module:
    return build_network()


@pytest.fixture
def batch() -> tuple[torch.Tensor, torch.Tensor]:
    return draw_batch()


@pytest.mark.parametrize("defense", DEFENSES)
def test_autocast_leaves_the_penalty_in_float32(
    model: nn.Module, batch: Any, defense: dd.DeepDefense
) -> None:
    expected = defense(model, *batch)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        penalty = defense(model, *batch)
        assert dd.deepfool(model, batch[0]).delta.dtype == torch.float32
        total = defense.objective(model.eval(), *batch)
    torch.testing.assert_close(penalty, expected, rtol=0, atol=0)
    total.backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())


def test_autocast_leaves_the_gradient_of_the_penalty_in_float32(batch: Any) -> None:
    backend, (x, y) = training_backend("torch"), batch

    def compute_losses(forward: Any, model: Any, x: Any, y: Any) -> Losses:
        mean = dd.DeepDefense(c=2.0)(model, x, y).mean()
        return Losses(mean, 0 * mean, mean, 0 * mean, 0 * mean)

    trainers = [dd.Recipe().make_trainer(backend, build_network()) for _ in range(2)]
    for trainer, lower in zip(trainers, (False, True), strict=True):
        with torch.autocast("cpu", torch.bfloat16, enabled=lower):
            assert trainer.step(compute_losses, x, y, lr=0.1, clip=float("inf")) is not None
    expected, found = (backend.weights(trainer.model) for trainer in trainers)
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value)


# PyTorch has an older and a newer interface to TF32. If a process uses both, it cannot return to
# one of them, so each test starts a new process.
TF32 = {
    "default": "",
    "older, on": "torch.set_float32_matmul_precision('medium')",
    "older, off": "cudnn.allow_tf32 = False",
    "newer": "cudnn.conv.fp32_precision = matmul.fp32_precision = 'tf32'",
    "newer, for all": "torch.backends.fp32_precision = 'tf32'",
}


@pytest.mark.parametrize("setting", TF32.values(), ids=TF32)
def test_measurements_turn_tf32_off_and_restore_it(setting: str) -> None:
    """The test reads PyTorch's settings, so it needs no GPU."""
    if "fp32_precision" in setting and not hasattr(torch.backends.cudnn, "conv"):
        pytest.skip("PyTorch before 2.9")
    code = f"""
import warnings
import torch
import deepdefense as dd
from deepdefense.evaluation.rho_protocol import measure_rho

warnings.simplefilter("error")
cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
{setting}

def read_or_refused(read):
    try:
        return read()
    except RuntimeError:
        return "refused"

def read_state():
    newer = (cudnn.conv, cudnn.rnn, matmul) if hasattr(cudnn, "conv") else ()
    older = (lambda: cudnn.allow_tf32, torch.get_float32_matmul_precision)
    return [place.fp32_precision for place in newer], [read_or_refused(read) for read in older]

def model(x):
    seen.append(read_state())
    return x @ weight

x, weight, seen, before = torch.eye(3), 2 * torch.eye(3), [], read_state()
dd.fgs_accuracy(model, x, torch.arange(3), [0.1])
measure_rho(model, x, torch.arange(3), backend=dd.get_backend("torch"))
assert len(seen) > 4
for newer, (conv, products) in seen:
    assert set(newer) <= {{"ieee"}}
    assert conv in (False, "refused") and products in ("highest", "refused")
    assert newer or not (conv or products == "refused")
assert read_state() == before
try:
    dd.fgs_accuracy(lambda x: 1 / 0, x, torch.arange(3), [0.1])
except dd.InputError:
    assert read_state() == before
else:
    raise AssertionError("the model's error was lost")
"""
    subprocess.run([sys.executable, "-c", code], check=True)
