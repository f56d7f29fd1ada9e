"""Tests that attacks and penalties leave a PyTorch model's state, modes and gradients unchanged."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import deepdefense as dd
from torch_models import build_network, draw_batch, nn, torch

pytestmark = pytest.mark.only("torch")

CALLS: dict[str, Callable[[Any, Any, Any], Any]] = {
    "deepfool": lambda model, x, y: dd.deepfool(model, x).delta,
    "deepfool p=inf": lambda model, x, y: dd.deepfool(model, x, y, p=float("inf")).delta,
    "unrolled": lambda model, x, y: dd.DeepDefense()(model, x, y),
    "implicit": lambda model, x, y: dd.DeepDefense(gradient="implicit")(model, x, y),
    "fast": lambda model, x, y: dd.DeepDefense.fast()(model, x, y),
    "evaluate": lambda model, x, y: dd.evaluate(model, x, y),
}


@pytest.fixture
def model() -> nn.Module:
    return build_network()


@pytest.fixture
def batch() -> tuple[torch.Tensor, torch.Tensor]:
    return draw_batch()


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_calls_leave_the_users_state_unchanged(model: nn.Module, batch: Any, call: Any) -> None:
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
def test_calls_restore_the_state_after_an_error(model: nn.Module, batch: Any, call: Any) -> None:
    modes = [module.training for module in model.modules()]
    model[6] = nn.Linear(3, 5)  # has the wrong input size
    random = torch.get_rng_state()
    # `evaluate` raises its own error; PyTorch's error is the `__cause__` of it.
    expected = dd.InputError if call is CALLS["evaluate"] else RuntimeError
    with pytest.raises(expected, match="shapes"):
        call(model, *batch)
    assert [module.training for module in model.modules()] == modes
    assert torch.equal(torch.get_rng_state(), random)


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_training_mode_changes_no_result(model: nn.Module, batch: Any, call: Any) -> None:
    training, evaluating = call(model, *batch), call(build_network().eval(), *batch)
    if isinstance(training, torch.Tensor):
        torch.testing.assert_close(training, evaluating, rtol=0, atol=0)
    else:  # the reports differ in the check that warns of the mode
        statuses = [
            next(c.status for c in report.checks if c.name == "training mode")
            for report in (training, evaluating)
        ]
        assert statuses == ["warn", "pass"]
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
        # Under inference_mode the clone is an inference tensor.
        perturbation = dd.deepfool(model, batch[0].clone())
        value = dd.DeepDefense()(model, *batch)
    torch.testing.assert_close(perturbation.delta, expected.delta, rtol=0, atol=0)
    torch.testing.assert_close(value, penalty.detach())
    assert not value.requires_grad


def test_attacks_carry_no_graph(model: nn.Module, batch: Any) -> None:
    perturbation = dd.deepfool(model, batch[0].requires_grad_())
    assert not any(part.requires_grad for part in perturbation)


def test_frozen_parameters_get_no_gradient(model: nn.Module, batch: Any) -> None:
    expected = dd.deepfool(model, batch[0]).delta
    free = dd.DeepDefense().objective(model.eval(), *batch)
    model[0].requires_grad_(False)
    torch.testing.assert_close(dd.deepfool(model, batch[0]).delta, expected)
    dd.DeepDefense().objective(model, *batch).backward()
    assert model[0].weight.grad is None
    partly_frozen = model[6].weight.grad.clone()
    model[6].weight.grad = None
    free.backward()
    torch.testing.assert_close(partly_frozen, model[6].weight.grad)
    model.requires_grad_(False)
    torch.testing.assert_close(dd.deepfool(model, batch[0]).delta, expected)
    model.zero_grad()
    dd.DeepDefense()(model, *batch).sum().backward()
    assert all(p.grad is None for p in model.parameters())


def test_labels_may_have_any_integer_type(model: nn.Module, batch: Any) -> None:
    x, y = batch
    expected = dd.DeepDefense()(model, x, y)
    for labels in (y.int(), y.to(torch.uint8)):
        torch.testing.assert_close(dd.DeepDefense()(model, x, labels), expected)


def test_evaluate_takes_host_data_and_attacks_do_not(model: nn.Module, batch: Any) -> None:
    x, y = batch
    assert dd.evaluate(model, x.numpy(), y.numpy()) == dd.evaluate(model, x, y)
    with pytest.raises(dd.InputError, match="the model is of torch, but the examples are of numpy"):
        dd.deepfool(model, np.ones((2, 2, 6, 6)))
