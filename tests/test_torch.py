"""PyTorch's own matters: nothing of the user's model or state is touched."""

from __future__ import annotations

import importlib
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import assume

import deepdefense as dd
from deepdefense.seam.training import Losses, training_backend
from deepdefense.testing import AUTODIFF, Case, Harness, cases, given
from deepdefense.testing.penalty_harness import assume_smooth, make_defense

torch = pytest.importorskip("torch", reason="PyTorch is not installed")
from torch import nn  # noqa: E402 - after the check that there is a torch

pytestmark = pytest.mark.only("torch")


def network() -> nn.Module:
    """Convolution, batch norm and dropout, in training mode with one part frozen in evaluation."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(2, 4, 3),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Dropout(0.5),
        nn.Flatten(),
        nn.Linear(16, 5),
    )
    model(torch.randn(8, 2, 6, 6))  # statistics away from their start
    model[1].eval()
    return model


@pytest.fixture
def model() -> nn.Module:
    return network()


@pytest.fixture
def batch() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(6, 2, 6, 6, generator=generator)
    return x, torch.randint(0, 5, (6,), generator=generator)


CALLS: dict[str, Callable[[Any, Any, Any], Any]] = {
    "deepfool": lambda model, x, y: dd.deepfool(model, x).delta,
    "deepfool p=inf": lambda model, x, y: dd.deepfool(model, x, y, p=float("inf")).delta,
    "unrolled": lambda model, x, y: dd.DeepDefense()(model, x, y),
    "implicit": lambda model, x, y: dd.DeepDefense(gradient="implicit")(model, x, y),
    "fast": lambda model, x, y: dd.DeepDefense.fast()(model, x, y),
    "evaluate": lambda model, x, y: dd.evaluate(model, x, y),
}
DEFENSES = [
    pytest.param(dd.DeepDefense(), id="unrolled"),
    pytest.param(dd.DeepDefense(gradient="implicit"), id="implicit"),
    pytest.param(dd.DeepDefense.fast(), id="fast"),
]


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_nothing_of_the_users_is_touched(model: nn.Module, batch: Any, call: Any) -> None:
    x, y = batch
    model[0].weight.grad = torch.full_like(model[0].weight, 7.0)
    x.requires_grad_()
    modes = [module.training for module in model.modules()]
    state = {name: value.clone() for name, value in model.state_dict().items()}
    random = torch.get_rng_state()
    call(model, x, y)
    assert [module.training for module in model.modules()] == modes
    for name, value in model.state_dict().items():
        assert torch.equal(value, state[name]), name
    assert torch.equal(torch.get_rng_state(), random)
    assert x.grad is None
    assert (model[0].weight.grad == 7).all()
    assert all(p.grad is None for p in list(model.parameters())[1:])
    assert torch.is_grad_enabled()


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_everything_is_restored_after_an_error(model: nn.Module, batch: Any, call: Any) -> None:
    modes = [module.training for module in model.modules()]
    model[6] = nn.Linear(3, 5)  # does not fit
    random = torch.get_rng_state()
    # `evaluate` says in one line which examples the network does not take; PyTorch's is its cause.
    expected = dd.InputError if call is CALLS["evaluate"] else RuntimeError
    with pytest.raises(expected, match="shapes"):
        call(model, *batch)
    assert [module.training for module in model.modules()] == modes
    assert torch.equal(torch.get_rng_state(), random)


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_training_mode_makes_no_difference(model: nn.Module, batch: Any, call: Any) -> None:
    training, evaluating = call(model, *batch), call(network().eval(), *batch)
    if isinstance(training, torch.Tensor):
        torch.testing.assert_close(training, evaluating, rtol=0, atol=0)
    else:  # but that the report says which mode the model came in
        told = [
            next(c.status for c in report.checks if c.name == "training mode")
            for report in (training, evaluating)
        ]
        assert told == ["warn", "pass"]
        training, evaluating = (
            replace(r, checks=tuple(c for c in r.checks if c.name != "training mode"))
            for r in (training, evaluating)
        )
        assert training == evaluating


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_attacks_work_without_gradients(model: nn.Module, batch: Any, context: Any) -> None:
    expected = dd.deepfool(model, batch[0])
    penalty = dd.DeepDefense()(model, *batch)
    with context():
        found = dd.deepfool(model, batch[0].clone())  # an inference tensor under inference_mode
        value = dd.DeepDefense()(model, *batch)
    torch.testing.assert_close(found.delta, expected.delta, rtol=0, atol=0)
    torch.testing.assert_close(value, penalty.detach())
    assert not value.requires_grad


def test_attacks_carry_no_graph(model: nn.Module, batch: Any) -> None:
    found = dd.deepfool(model, batch[0].requires_grad_())
    assert not any(part.requires_grad for part in found)


def test_frozen_parameters_are_left_frozen(model: nn.Module, batch: Any) -> None:
    expected = dd.deepfool(model, batch[0]).delta
    free = dd.DeepDefense().objective(model.eval(), *batch)
    model[0].requires_grad_(False)
    torch.testing.assert_close(dd.deepfool(model, batch[0]).delta, expected)
    dd.DeepDefense().objective(model, *batch).backward()
    assert model[0].weight.grad is None
    frozen = model[6].weight.grad.clone()
    model[6].weight.grad = None
    free.backward()
    torch.testing.assert_close(frozen, model[6].weight.grad)
    model.requires_grad_(False)
    torch.testing.assert_close(dd.deepfool(model, batch[0]).delta, expected)
    model.zero_grad()
    dd.DeepDefense()(model, *batch).sum().backward()
    assert all(p.grad is None for p in model.parameters())


@pytest.mark.parametrize("defense", DEFENSES)
def test_autocast_leaves_the_penalty_in_float32(
    model: nn.Module, batch: Any, defense: dd.DeepDefense
) -> None:
    expected = defense(model, *batch)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = defense(model, *batch)
        assert dd.deepfool(model, batch[0]).delta.dtype == torch.float32
        total = defense.objective(model.eval(), *batch)
    torch.testing.assert_close(found, expected, rtol=0, atol=0)
    total.backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())


def test_autocast_leaves_the_gradient_of_the_penalty_in_float32(batch: Any) -> None:
    backend, (x, y) = training_backend("torch"), batch

    def penalty(forward: Any, model: Any, x: Any, y: Any) -> Losses:
        found = dd.DeepDefense(c=2.0)(model, x, y).mean()
        return Losses(found, 0 * found, found, 0 * found, 0 * found)

    trainers = [dd.Recipe().make_trainer(backend, network()) for _ in range(2)]
    for trainer, lower in zip(trainers, (False, True), strict=True):
        with torch.autocast("cpu", torch.bfloat16, enabled=lower):
            assert trainer.step(penalty, x, y, lr=0.1, clip=float("inf")) is not None
    expected, found = (backend.weights(trainer.model) for trainer in trainers)
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value)


@pytest.mark.parametrize("defense", DEFENSES)
def test_training_mode_makes_no_difference_to_the_gradient(
    batch: Any, defense: dd.DeepDefense
) -> None:
    defense = replace(defense, c=2.0)
    found, expected = (
        torch.autograd.grad(defense(model, *batch).sum(), list(model.parameters()))
        for model in (network(), network().eval())
    )
    torch.testing.assert_close(found, expected, rtol=0, atol=0)
    assert all(gradient.any() for gradient in found)


def test_batch_norm_and_dropout_have_the_right_gradient(batch: Any) -> None:
    """The penalty's gradient in every parameter, against differences, network in training mode."""
    model, (x, y) = network().double(), (batch[0].double(), batch[1])
    model[2], model[3] = nn.Tanh(), nn.AvgPool2d(2)  # smooth, for the differences
    defense = dd.DeepDefense(lam=1.0, c=2.0, d=1.0, steps=2)
    parameters = list(model.parameters())
    gradients = torch.autograd.grad(defense(model, x, y).sum(), parameters)
    directions = [torch.randn_like(p) for p in parameters]
    found = sum(float((g * v).sum()) for g, v in zip(gradients, directions, strict=True))
    values = []
    for step in (1e-5, -2e-5):
        with torch.no_grad():
            for p, v in zip(parameters, directions, strict=True):
                p.add_(step * v)
        values.append(float(defense(model, x, y).detach().sum()))
    assert found == pytest.approx((values[0] - values[1]) / 2e-5, rel=1e-6)


def test_penalty_of_a_hopeless_batch_still_has_a_graph() -> None:
    """No example with a boundary in sight: the gradient is zero, and backward does not fail."""
    model = nn.Linear(3, 2)
    for defense in (dd.DeepDefense(), dd.DeepDefense(gradient="implicit"), dd.DeepDefense.fast()):
        model.zero_grad()
        x = torch.full((2, 3), float("nan"))
        defense(model, x, torch.tensor([0, 1])).sum().backward()
        assert (model.weight.grad == 0).all()


class _Doubled(torch.autograd.Function):
    """An operation of the user's own, which looks at values on its way back."""

    @staticmethod
    def forward(ctx: Any, x: Any) -> Any:
        return 2 * x

    @staticmethod
    def backward(ctx: Any, gradient: Any) -> Any:
        assert np.isfinite(gradient.detach().cpu().numpy()).all()
        return 2 * gradient


@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize("p", [1, 2, np.inf])
def test_classes_at_once_or_one_by_one(own: bool, p: float, monkeypatch: Any) -> None:
    """Dense networks take the gradients of all classes in one backward pass, others in turn."""
    torch.manual_seed(0)
    layers = [nn.Flatten(), nn.Linear(12, 9), nn.Tanh(), nn.Linear(9, 6)]
    dense = nn.Sequential(*layers).double()
    model = (lambda x: _Doubled.apply(dense(x))) if own else dense
    x = torch.randn(5, 3, 4, dtype=torch.float64)
    at_once = dd.deepfool(model, x, p=p, steps=5)
    monkeypatch.setattr("deepdefense_torch.adapter.GRADIENTS", 0)
    in_turn = dd.deepfool(model, x, p=p, steps=5)
    assert at_once.success.all()
    assert (at_once.steps == in_turn.steps).all()
    # The sums of a matrix product run in another order.
    torch.testing.assert_close(at_once.delta, in_turn.delta, rtol=1e-12, atol=1e-12)


def test_dense_networks_are_told_from_others() -> None:
    x = torch.randn(2, 3, 8, 8, requires_grad=True)
    dense = nn.Sequential(nn.Flatten(), nn.Linear(192, 9), nn.GELU(), nn.Dropout(), nn.Linear(9, 3))
    pooled = nn.Sequential(nn.MaxPool2d(2), nn.Flatten(), nn.Linear(48, 3))
    adapter = importlib.import_module("deepdefense_torch.adapter")
    assert adapter._dense(dense.eval()((x - 0.5) / 0.2))
    assert adapter._dense(dense.requires_grad_(False)(x))
    assert not adapter._dense(pooled(x))
    assert not adapter._dense(_Doubled.apply(x))


def test_labels_of_any_integer_type(model: nn.Module, batch: Any) -> None:
    x, y = batch
    expected = dd.DeepDefense()(model, x, y)
    for labels in (y.int(), y.to(torch.uint8)):
        torch.testing.assert_close(dd.DeepDefense()(model, x, labels), expected)


def test_host_data_with_a_native_model(model: nn.Module, batch: Any) -> None:
    x, y = batch
    assert dd.evaluate(model, x.numpy(), y.numpy()) == dd.evaluate(model, x, y)
    with pytest.raises(dd.InputError, match="the model is of torch, but the examples are of numpy"):
        dd.deepfool(model, np.ones((2, 2, 6, 6)))


# In which language, and where: what is mixed in one process cannot be unmixed.
TF32 = {
    "as it comes": "",
    "older, on": "torch.set_float32_matmul_precision('medium')",
    "older, off": "cudnn.allow_tf32 = False",
    "newer": "cudnn.conv.fp32_precision = matmul.fp32_precision = 'tf32'",
    "newer, for all": "torch.backends.fp32_precision = 'tf32'",
}


@pytest.mark.parametrize("setting", TF32.values(), ids=TF32)
def test_figures_are_of_full_precision_and_the_users_choice_stays(setting: str) -> None:
    """By what PyTorch is told, not by what a GPU does."""
    if "fp32_precision" in setting and not hasattr(torch.backends.cudnn, "conv"):
        pytest.skip("PyTorch before 2.9")
    code = f"""
import warnings
import torch
import deepdefense as dd
from deepdefense.evaluation.rho import measure_rho

warnings.simplefilter("error")
cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
{setting}

def told(read):
    try:
        return read()
    except RuntimeError:
        return "refused"

def state():
    newer = (cudnn.conv, cudnn.rnn, matmul) if hasattr(cudnn, "conv") else ()
    older = (lambda: cudnn.allow_tf32, torch.get_float32_matmul_precision)
    return [place.fp32_precision for place in newer], [told(read) for read in older]

def model(x):
    seen.append(state())
    return x @ weight

x, weight, seen, before = torch.eye(3), 2 * torch.eye(3), [], state()
dd.fgs_accuracy(model, x, torch.arange(3), [0.1])
measure_rho(model, x, torch.arange(3), backend=dd.get_backend("torch"))
assert len(seen) > 4
for newer, (conv, products) in seen:
    assert set(newer) <= {{"ieee"}}
    assert conv in (False, "refused") and products in ("highest", "refused")
    assert newer or not (conv or products == "refused")
assert state() == before
try:
    dd.fgs_accuracy(lambda x: 1 / 0, x, torch.arange(3), [0.1])
except dd.InputError:
    assert state() == before
else:
    raise AssertionError("the model's error was lost")
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def naive_objective(model, x, y, defense: dd.DeepDefense):
    """Deep Defense in plain torch for p = 2, every class in the graph of every iteration."""
    total = torch.nn.functional.cross_entropy(model(x), y, reduction="sum")
    for start, label in zip(x, y, strict=True):
        clean = model(start[None])[0]
        right = bool(clean.argmax() == label)
        ranked = clean.argsort(descending=True, stable=True)[: defense.candidates].tolist()
        shift = torch.zeros_like(start)
        for _ in range(defense.steps):
            point = start + shift
            if not point.requires_grad:
                point.requires_grad_()
            logits = model(point[None])[0]
            slopes = [
                torch.autograd.grad(logit, point, create_graph=True, retain_graph=True)[0]
                for logit in logits
            ]
            others = [j for j in range(len(logits)) if j != label]
            base = int(label) if right else max(others, key=lambda j: float(logits[j].detach()))
            targets = [j for j in ranked if j != label] if right else [int(label)]
            steps = []
            for j in targets:
                gap, normal = logits[j] - logits[base], slopes[j] - slopes[base]
                steps.append((gap.abs() / normal.norm(), gap.abs() / normal.norm() ** 2 * normal))
            shift = shift + min(steps, key=lambda pair: float(pair[0].detach()))[1]
            end = model((start + (1 + defense.overshoot) * shift)[None])[0].argmax()
            if bool(end == label) != right:
                break
        rho = (1 + defense.overshoot) * shift.norm() / start.norm()
        exponent = -defense.c * rho if right else defense.d * rho
        total = total + defense.lam * exponent.exp()
    return total / len(x)


class _Torch(Harness):
    backend = "torch"


@given(cases(orders=(2.0,)))
def test_equals_the_naive_definition_with_every_class_in_the_graph(case: Case) -> None:
    """Replaying only the chosen classes changes neither value nor gradient."""
    harness, defense = _Torch(), make_defense(case)
    assume_smooth(case, defense)
    x, y = harness.to_array(case.x), harness.to_array(case.y)
    direction = case.draw_direction()
    found, naive = (
        harness.find_slope(case.network, value, direction)
        for value in (
            lambda model: defense.objective(model, x, y),
            lambda model: naive_objective(model, x, y, defense),
        )
    )
    assume(np.isfinite(naive))  # where every ReLU is dead, the naive definition divides 0 by 0
    np.testing.assert_allclose(found, naive, rtol=AUTODIFF, atol=AUTODIFF)
