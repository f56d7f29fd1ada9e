"""Tests in PyTorch of the penalty's gradient, and of both methods for class gradients."""

from __future__ import annotations

import importlib
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import assume

import deepdefense as dd
from deepdefense.testing import AUTODIFF, Case, Harness, cases, given
from deepdefense.testing.penalty_harness import assume_smooth, make_defense
from torch_models import DEFENSES, build_network, draw_batch, nn, torch

pytestmark = pytest.mark.only("torch")


@pytest.fixture
def batch() -> tuple[torch.Tensor, torch.Tensor]:
    return draw_batch()


@pytest.mark.parametrize("defense", DEFENSES)
def test_training_mode_changes_no_gradient(batch: Any, defense: dd.DeepDefense) -> None:
    defense = replace(defense, c=2.0)
    result, expected = (
        torch.autograd.grad(defense(model, *batch).sum(), list(model.parameters()))
        for model in (build_network(), build_network().eval())
    )
    torch.testing.assert_close(result, expected, rtol=0, atol=0)
    assert all(gradient.any() for gradient in result)


def test_gradient_with_batch_norm_and_dropout_equals_differences(batch: Any) -> None:
    """Compare the gradient in training mode along random directions of all parameters."""
    model, (x, y) = build_network().double(), (batch[0].double(), batch[1])
    model[2], model[3] = nn.Tanh(), nn.AvgPool2d(2)  # finite differences need a smooth network
    defense = dd.DeepDefense(lam=1.0, c=2.0, d=1.0, steps=2)
    parameters = list(model.parameters())
    gradients = torch.autograd.grad(defense(model, x, y).sum(), parameters)
    directions = [torch.randn_like(p) for p in parameters]
    result = sum(float((g * v).sum()) for g, v in zip(gradients, directions, strict=True))
    values = []
    for step in (1e-5, -2e-5):
        with torch.no_grad():
            for p, v in zip(parameters, directions, strict=True):
                p.add_(step * v)
        values.append(float(defense(model, x, y).detach().sum()))
    assert result == pytest.approx((values[0] - values[1]) / 2e-5, rel=1e-6)


def test_a_batch_without_boundaries_has_gradient_zero() -> None:
    """If no example has a finite distance, backward must work, and the gradient is zero."""
    model = nn.Linear(3, 2)
    for defense in (dd.DeepDefense(), dd.DeepDefense(gradient="implicit"), dd.DeepDefense.fast()):
        model.zero_grad()
        x = torch.full((2, 3), float("nan"))
        defense(model, x, torch.tensor([0, 1])).sum().backward()
        assert (model.weight.grad == 0).all()


class _Doubled(torch.autograd.Function):
    """A user-defined operation, whose backward pass needs concrete values."""

    @staticmethod
    def forward(ctx: Any, x: Any) -> Any:
        return 2 * x

    @staticmethod
    def backward(ctx: Any, gradient: Any) -> Any:
        assert np.isfinite(gradient.detach().cpu().numpy()).all()
        return 2 * gradient


@pytest.mark.parametrize("custom", [False, True])
@pytest.mark.parametrize("p", [1, 2, np.inf])
def test_class_gradients_at_once_equal_those_one_by_one(
    custom: bool, p: float, monkeypatch: Any
) -> None:
    """A dense network needs one backward pass for all classes, other networks one per class."""
    torch.manual_seed(0)
    layers = [nn.Flatten(), nn.Linear(12, 9), nn.Tanh(), nn.Linear(9, 6)]
    dense = nn.Sequential(*layers).double()
    model = (lambda x: _Doubled.apply(dense(x))) if custom else dense
    x = torch.randn(5, 3, 4, dtype=torch.float64)
    at_once = dd.deepfool(model, x, p=p, steps=5)
    monkeypatch.setattr("deepdefense_torch.adapter.MAX_CHUNK", 0)
    in_turn = dd.deepfool(model, x, p=p, steps=5)
    assert at_once.success.all()
    assert (at_once.steps == in_turn.steps).all()
    # The two methods add in different orders.
    torch.testing.assert_close(at_once.delta, in_turn.delta, rtol=1e-12, atol=1e-12)


def test_dense_networks_are_recognised() -> None:
    x = torch.randn(2, 3, 8, 8, requires_grad=True)
    dense = nn.Sequential(nn.Flatten(), nn.Linear(192, 9), nn.GELU(), nn.Dropout(), nn.Linear(9, 3))
    pooled = nn.Sequential(nn.MaxPool2d(2), nn.Flatten(), nn.Linear(48, 3))
    autograd = importlib.import_module("deepdefense_torch.autograd")
    assert autograd.is_dense(dense.eval()((x - 0.5) / 0.2))
    assert autograd.is_dense(dense.requires_grad_(False)(x))
    assert not autograd.is_dense(pooled(x))
    assert not autograd.is_dense(_Doubled.apply(x))


def compute_naive_objective(model, x, y, defense: dd.DeepDefense):
    """Return Deep Defense's objective for p = 2 by plain PyTorch, with all classes in the graph."""
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


class _TorchHarness(Harness):
    backend = "torch"


@given(cases(orders=(2.0,)))
def test_objective_equals_the_naive_definition(case: Case) -> None:
    """The library has only the nearest classes in the graph, with equal value and gradient."""
    harness, defense = _TorchHarness(), make_defense(case)
    assume_smooth(case, defense)
    x, y = harness.to_array(case.x), harness.to_array(case.y)
    direction = case.draw_direction()
    value, naive = (
        harness.find_slope(case.network, function, direction)
        for function in (
            lambda model: defense.objective(model, x, y),
            lambda model: compute_naive_objective(model, x, y, defense),
        )
    )
    assume(np.isfinite(naive))  # the naive definition is 0 / 0 if every ReLU is 0
    np.testing.assert_allclose(value, naive, rtol=AUTODIFF, atol=AUTODIFF)
