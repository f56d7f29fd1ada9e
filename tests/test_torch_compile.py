"""`torch.compile` of the whole objective: one graph, and nothing differs from the plain call."""

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
def no_graph_of_before() -> Iterator[None]:
    torch.compiler.reset()
    yield
    torch.compiler.reset()


@pytest.fixture
def model() -> nn.Module:
    """Batch norm and dropout, in training mode with one part frozen in evaluation."""
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
    model(torch.randn(16, 6).double())  # statistics away from their start
    model[5].eval()
    return model


def batch(model: nn.Module, size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Right and wrong examples by turns."""
    generator = torch.Generator().manual_seed(size)
    x = torch.randn(size, 6, generator=generator).double()
    guess = copy.deepcopy(model).eval()(x).argmax(1)
    return x, (guess + torch.arange(size) % 2) % 4


def run(model: nn.Module, objective: Objective, x: Any, y: Any) -> tuple[Any, ...]:
    """The value, every gradient, and every statistic afterwards, from one random state."""
    torch.manual_seed(7)
    value = objective(x, y)
    gradients = torch.autograd.grad(value, list(model.parameters()))
    return value.detach(), gradients, {name: b.clone() for name, b in model.named_buffers()}


def objective(defense: dd.DeepDefense, model: nn.Module) -> Objective:
    return lambda x, y: defense.objective(model, x, y)


@pytest.mark.parametrize(
    ("gradient", "p"),  # each takes half a minute to trace
    [("unrolled", 2.0), ("unrolled", math.inf), ("implicit", 2.0), ("chord", math.inf)],
)
def test_the_compiled_objective_is_the_plain_one(model: nn.Module, gradient: Any, p: float) -> None:
    defense = dd.DeepDefense(c=2.0, steps=2, p=p, gradient=gradient)
    x, y = batch(model, 6)
    terms = defense.terms(model, x, y)
    assert terms.correct.any()
    assert not terms.correct.all()
    twin = copy.deepcopy(model)
    modes = [module.training for module in model.modules()]
    compiled = torch.compile(objective(defense, model), backend="aot_eager", fullgraph=True)
    found, expected = run(model, compiled, x, y), run(twin, objective(defense, twin), x, y)
    torch.testing.assert_close(found, expected)
    assert all(gradient.any() for gradient in found[1])
    assert [module.training for module in model.modules()] == modes


def test_the_default_compiler(model: nn.Module) -> None:
    """In training mode: the graph's backward pass must not see statistics overwritten since."""
    model[3].p = 0.0  # a compiler draws random numbers of its own
    defense = dd.DeepDefense(c=2.0, steps=1)
    x, y = batch(model, 6)
    twin = copy.deepcopy(model)
    compiled = torch.compile(objective(defense, model), fullgraph=True)
    found, expected = run(model, compiled, x, y), run(twin, objective(defense, twin), x, y)
    torch.testing.assert_close(found, expected)


def test_one_graph_and_one_more_for_all_other_batch_sizes(model: nn.Module) -> None:
    graphs = []

    def compiler(graph: torch.fx.GraphModule, _: Any) -> Any:
        graphs.append(graph)
        return graph.forward

    defense = dd.DeepDefense(c=2.0, steps=1)
    compiled = torch.compile(objective(defense, model.eval()), backend=compiler)
    for size, count in [(6, 1), (6, 1), (5, 2), (9, 2)]:
        x, y = batch(model, size)
        found, expected = (run(model, f, x, y) for f in (compiled, objective(defense, model)))
        torch.testing.assert_close(found, expected)
        assert len(graphs) == count


def test_without_gradients(model: nn.Module) -> None:
    defense = dd.DeepDefense(c=2.0, steps=1)
    x, y = batch(model, 6)
    compiled = torch.compile(lambda x, y: defense(model, x, y), backend="aot_eager", fullgraph=True)
    with torch.no_grad():
        found = compiled(x, y)
    assert not found.requires_grad
    torch.testing.assert_close(found, defense(model, x, y).detach())


def test_an_example_out_of_bounds_spoils_no_gradient(model: nn.Module) -> None:
    """Examples that the plain search leaves out take part in the graph, behind a mask."""
    defense = dd.DeepDefense(c=2.0, steps=2)
    x, y = batch(model.eval(), 6)
    x[0, 0], x[1] = math.nan, 0
    found, expected = (
        run(model, f, x, y)[:2]
        for f in (
            torch.compile(
                lambda x, y: defense(model, x, y).sum(), backend="aot_eager", fullgraph=True
            ),
            lambda x, y: defense(model, x, y).sum(),
        )
    )
    torch.testing.assert_close(found, expected)
    assert all(gradient.isfinite().all() for gradient in found[1])


def test_the_attack_compiles_too(model: nn.Module) -> None:
    x, y = batch(model, 6)
    x, attack = x.clamp(-2.5, 2.5), {"steps": 3, "bounds": (-2.5, 2.5)}
    compiled = torch.compile(
        lambda x, y: dd.deepfool(model, x, y, **attack), backend="aot_eager", fullgraph=True
    )
    torch.testing.assert_close(compiled(x, y), dd.deepfool(model, x, y, **attack))
