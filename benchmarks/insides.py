"""What a hardening step is made of: passes through the network, and activations kept."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.hardening import DEFENSES
from benchmarks.subjects import Subject, of_zoo
from benchmarks.timing import alternated
from deepdefense.backend import get_backend
from deepdefense.data import Dataset
from deepdefense.defense import DeepDefense
from deepdefense.objective import Objective

__all__ = ["Counted", "activations", "approximation", "one_pass", "passes"]

TEST_IMAGES = 1000


class Counted(nn.Module):
    """A model that counts the examples that go through it, and gradients that reach its input."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model, self.forward_rows, self.backward_rows = model, 0, 0

    def forward(self, x: Tensor) -> Any:
        """What the model says, and a count."""
        self.forward_rows += len(x)
        if x.requires_grad:
            x = x.view_as(x)
            x.register_hook(self._count)
        return self.model(x)

    def _count(self, gradient: Tensor) -> None:
        self.backward_rows += len(gradient)


def _loss(objective: Objective, model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    total: Tensor = objective.losses(get_backend("torch"), model, model, x, y).total
    return total


def _step(loss: Callable[[], Tensor]) -> None:
    loss().backward()


def one_pass(model: nn.Module, x: Tensor) -> dict[str, Callable[[], object]]:
    """A forward pass of a batch, and a gradient towards it."""
    given = x.clone().requires_grad_()
    logits = model(given)
    cotangent = torch.ones_like(logits)
    return {
        "forward": lambda: get_backend("torch").forward(model, x),
        "towards the input": lambda: torch.autograd.grad(
            logits, given, cotangent, retain_graph=True
        ),
    }


def passes(title: str, subject: Subject, rounds: int) -> Iterator[dict[str, Any]]:
    """Passes of the whole batch that a step makes, and the share of its time they account for.

    Forward passes and gradients towards the input, those of the plain step included, counted as
    they happen; each costs what it costs alone. The backward pass is the framework's own: towards
    the weights, and through the search where that is differentiated. The rest of the time is
    arithmetic on perturbations.
    """
    model, x, y = subject
    losses = {way: partial(_loss, defense, model, x, y) for way, defense in DEFENSES.items()}
    steps = {way: partial(_step, loss) for way, loss in losses.items()}
    once = alternated(
        {**steps, **{f"{way}: loss": loss for way, loss in losses.items()}, **one_pass(model, x)},
        base="plain",
        rounds=rounds,
    )
    for way, defense in DEFENSES.items():
        counted = Counted(model)
        _loss(defense, counted, x, y)
        forward, backward = counted.forward_rows / len(x), counted.backward_rows / len(x)
        alone = (
            forward * once["forward"].seconds + backward * once["towards the input"].seconds
        ) / once[way].seconds
        yield {
            "subject": title,
            "way": way,
            "forward_passes": forward,
            "input_gradients": backward,
            "forward_ratio": once["forward"].ratio,
            "input_gradient_ratio": once["towards the input"].ratio,
            "ratio": once[way].ratio,  # without the optimizer's own time
            "passes_share": alone,
            "backward_share": 1 - once[f"{way}: loss"].seconds / once[way].seconds,
        }


def approximation(
    kind: str, weights: Mapping[str, np.ndarray], data: Dataset
) -> Iterator[dict[str, Any]]:
    """How far from the exact penalty's rho the cheaper ones are, on test images."""
    model, _, _ = of_zoo(kind, weights, data)
    x = torch.tensor(data.x_test[:TEST_IMAGES])
    with torch.no_grad():
        y = model.eval()(x).argmax(1)
        rho = {
            way: d.terms(model, x, y).rho
            for way, d in DEFENSES.items()
            if isinstance(d, DeepDefense)
        }
    for way, found in rho.items():
        error = found / rho["exact"] - 1
        yield {
            "subject": f"torch, {kind}",
            "way": way,
            "images": len(x),
            "error_median": float(error.median()),
            "size_median": float(error.abs().median()),
            "size_95": float(error.abs().quantile(0.95)),
        }


class _Kept:
    """A tensor that a graph keeps for its backward pass."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor


def _bytes_kept(loss: Any, own: set[int]) -> tuple[int, int]:
    """The most bytes that graphs hold at one time, and what is held when the loss is known."""
    alive: weakref.WeakSet[_Kept] = weakref.WeakSet()
    most = 0

    def held() -> int:
        storages = {k.tensor.untyped_storage().data_ptr(): k.tensor for k in alive}
        return sum(
            tensor.untyped_storage().nbytes() for at, tensor in storages.items() if at not in own
        )

    def pack(tensor: Tensor) -> _Kept:
        nonlocal most
        kept = _Kept(tensor.detach())  # with its graph it would keep itself alive
        alive.add(kept)
        most = max(most, held())
        return kept

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda kept: kept.tensor):
        total = loss()
        at_the_end = held()
    del total
    return most, at_the_end


def activations(
    kind: str, weights: Mapping[str, np.ndarray], data: Dataset
) -> Iterator[dict[str, Any]]:
    """Bytes kept for backward passes, as a multiple of a plain step's; weights and input apart."""
    model, x, y = of_zoo(kind, weights, data)
    own = {p.untyped_storage().data_ptr() for p in (*model.parameters(), x)}
    plain = 0
    for way, defense in DEFENSES.items():
        most, end = _bytes_kept(lambda d=defense: _loss(d, model, x, y), own)
        plain = plain or end
        yield {
            "subject": f"torch, {kind}",
            "way": way,
            "bytes": end,
            "ratio": end / plain,
            "peak_ratio": most / plain,
        }
