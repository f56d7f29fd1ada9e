"""Tests that `torch.compile` makes one graph of the objective, with the result of a plain call."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import deepdefense as dd

torch = pytest.importorskip("torch", reason="PyTorch is not installed")
from torch import nn  # noqa: E402 - after the check that there is a torch

pytestmark = pytest.mark.only("torch")

Objective = Callable[[Any, Any], Any]


@pytest.fixture(autouse=True)
def reset_compiler() -> Iterator[None]:
    torch.compiler.reset()
    yield
    torch.compiler.reset()


@pytest.fixture
def model() -> nn.Module:
    """A network with batch norm and dropout. All layers but one are in training mode."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(6, 8),
        nn.BatchNorm1d(8),
        nn.Tanh(),
        nn.Dropout(0.5),
        nn.Linear(8, 8),
        nn.BatchNorm1d(8),
        nn.Linear(8, 4),
    ).double()
    model(torch.randn(16, 6).double())  # statistics other than the initial ones
    model[5].eval()
    return model


def draw_batch(model: nn.Module, size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Draw examples and labels; every second example is misclassified."""
    generator = torch.Generator().manual_seed(size)
    x = torch.randn(size, 6, generator=generator).double()
    predicted = copy.deepcopy(model).eval()(x).argmax(1)
    return x, (predicted + torch.arange(size) % 2) % 4


def run(model: nn.Module, objective: Objective, x: Any, y: Any) -> tuple[Any, ...]:
    """Return an objective, its gradients and the new statistics, from a fixed random state."""
    torch.manual_seed(7)
    value = objective(x, y)
    gradients = torch.autograd.grad(value, list(model.parameters()))
    return value.detach(), gradients, {name: b.clone() for name, b in model.named_buffers()}


def make_objective(defense: dd.DeepDefense, model: nn.Module) -> Objective:
    """Return the defence's objective for a model, as a function of the batch."""
    return lambda x, y: defense.objective(model, x, y)


@pytest.mark.parametrize(
    ("gradient", "p"),  # few cases, because tracing is slow
    [("unrolled", 2.0), ("unrolled", math.inf), ("implicit", 2.0), ("chord", math.inf)],
)
def test_compiled_objective_equals_the_plain_one(model: nn.Module, gradient: Any, p: float) -> None:
    defense = dd.DeepDefense(c=2.0, steps=2, p=p, gradient=gradient)
    x, y = draw_batch(model, 6)
    terms = defense.terms(model, x, y)
    assert terms.correct.any()
    assert not terms.correct.all()
    twin = copy.deepcopy(model)
    modes = [module.training for module in model.modules()]
    compiled = torch.compile(make_objective(defense, model), backend="aot_eager", fullgraph=True)
    result, expected = run(model, compiled, x, y), run(twin, make_objective(defense, twin), x, y)
    torch.testing.assert_close(result, expected)
    assert all(gradient.any() for gradient in result[1])
    assert [module.training for module in model.modules()] == modes


def test_default_compiler_equals_the_plain_call(model: nn.Module) -> None:
    """The backward pass must use the batch-norm statistics as they were before their update."""
    model[3].p = 0.0  # no dropout: a compiler draws other random numbers
    defense = dd.DeepDefense(c=2.0, steps=1)
    x, y = draw_batch(model, 6)
    twin = copy.deepcopy(model)
    compiled = torch.compile(make_objective(defense, model), fullgraph=True)
    result, expected = run(model, compiled, x, y), run(twin, make_objective(defense, twin), x, y)
    torch.testing.assert_close(result, expected)


def test_all_other_batch_sizes_share_a_second_graph(model: nn.Module) -> None:
    graphs = []

    def count_graphs(graph: torch.fx.GraphModule, _: Any) -> Any:
        graphs.append(graph)
        return graph.forward

    defense = dd.DeepDefense(c=2.0, steps=1)
    compiled = torch.compile(make_objective(defense, model.eval()), backend=count_graphs)
    for size, count in [(6, 1), (6, 1), (5, 2), (9, 2)]:
        x, y = draw_batch(model, size)
        result, expected = (run(model, f, x, y) for f in (compiled, make_objective(defense, model)))
        torch.testing.assert_close(result, expected)
        assert len(graphs) == count


def test_compiled_penalty_without_gradients(model: nn.Module) -> None:
    defense = dd.DeepDefense(c=2.0, steps=1)
    x, y = draw_batch(model, 6)
    compiled = torch.compile(lambda x, y: defense(model, x, y), backend="aot_eager", fullgraph=True)
    with torch.no_grad():
        result = compiled(x, y)
    assert not result.requires_grad
    torch.testing.assert_close(result, defense(model, x, y).detach())


def test_an_unmeasurable_example_spoils_no_gradient(model: nn.Module) -> None:
    """The compiled search masks such examples; the plain search removes them from the batch."""
    defense = dd.DeepDefense(c=2.0, steps=2)
    x, y = draw_batch(model.eval(), 6)
    x[0, 0], x[1] = math.nan, 0
    result, expected = (
        run(model, f, x, y)[:2]
        for f in (
            torch.compile(
                lambda x, y: defense(model, x, y).sum(), backend="aot_eager", fullgraph=True
            ),
            lambda x, y: defense(model, x, y).sum(),
        )
    )
    torch.testing.assert_close(result, expected)
    assert all(gradient.isfinite().all() for gradient in result[1])


def test_the_attack_compiles(model: nn.Module) -> None:
    x, y = draw_batch(model, 6)
    x, attack = x.clamp(-2.5, 2.5), {"steps": 3, "bounds": (-2.5, 2.5)}
    compiled = torch.compile(
        lambda x, y: dd.deepfool(model, x, y, **attack), backend="aot_eager", fullgraph=True
    )
    torch.testing.assert_close(compiled(x, y), dd.deepfool(model, x, y, **attack))
