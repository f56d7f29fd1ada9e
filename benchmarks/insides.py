"""What a hardening step is made of: passes through the network, and activations kept."""

from __future__ import annotations

import copy
import weakref
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.hardening import DEFENSES, calls_of
from benchmarks.subjects import Subject, of_zoo
from benchmarks.timing import Timing, alternated
from deepdefense.defenses.deep_defense import DeepDefense
from deepdefense.defenses.objective import Objective
from deepdefense.evaluation.dataset import Dataset
from deepdefense.seam.choosing import get_backend

__all__ = ["BACKWARD", "FORWARD", "Counted", "activations", "approximation", "each_pass", "passes"]

TEST_IMAGES = 1000
FORWARD, BACKWARD = "forward", "towards the input"


class _Pass(NamedTuple):
    """A pass of so many examples, back for so many classes at once."""

    kind: str
    size: int
    classes: int = 1


class Counted(nn.Module):
    """A model that counts the passes through it, and gradients that reach its input, by size."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.passes: Counter[_Pass] = Counter()

    def forward(self, x: Tensor) -> Any:
        """What the model says, and a count."""
        self.passes[_Pass(FORWARD, len(x))] += 1
        if x.requires_grad:
            x = x.view_as(x)
            x.register_hook(self._count)
        return self.model(x)

    def _count(self, gradient: Tensor) -> None:
        # Gradients of several classes at once look like one from here; what tells is not public.
        batched = torch._C._functorch.is_batchedtensor(gradient)
        every = torch._C._functorch.get_unwrapped(gradient) if batched else gradient
        self.passes[_Pass(BACKWARD, len(gradient), every.numel() // gradient.numel())] += 1

    def examples(self, kind: str) -> int:
        """How many examples went through in passes of that kind, one for each class."""
        return sum(one.size * one.classes * n for one, n in self.passes.items() if one.kind == kind)

    def seconds_alone(self, once: Mapping[str, Timing]) -> float:
        """What the passes take with nothing beside them; `once`: what one of each takes."""
        return sum(n * once[str(one)].seconds for one, n in self.passes.items())


def _loss(objective: Objective, model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    total: Tensor = objective.losses(get_backend("torch"), model, model, x, y).total
    return total


def each_pass(
    model: nn.Module, x: Tensor, counted: Iterable[Counted]
) -> dict[str, Callable[[], object]]:
    """Each pass that was counted, alone: forward, or gradients towards the input."""
    calls: dict[str, Callable[[], object]] = {}
    still = copy.deepcopy(model)  # an optimizer touches the weights, if only with a rate of 0
    for one in sorted({one for model in counted for one in model.passes}):
        if one.kind == FORWARD:
            calls[str(one)] = partial(get_backend("torch").forward, still, x[: one.size])
            continue
        given = x[: one.size].clone().requires_grad_()
        logits = still(given)
        calls[str(one)] = partial(
            torch.autograd.grad,
            logits,
            given,
            torch.ones_like(logits) if one.classes == 1 else torch.ones(one.classes, *logits.shape),
            retain_graph=True,
            is_grads_batched=one.classes > 1,
        )
    return calls


def _multiply_adds(step: Callable[[], object]) -> int:
    """Of its matrix products and convolutions, forward and back, as PyTorch counts them."""
    with FlopCounterMode(display=False) as counter:
        step()
    return counter.get_total_flops() // 2  # it counts both


def passes(title: str, subject: Subject, rounds: int) -> Iterator[dict[str, Any]]:
    """Passes that a step makes, and the share of its time they account for.

    Forward passes and gradients towards the input, those of the plain step included, counted as
    they happen; each costs what it costs alone at its size, which is that of the batch at first.
    Then the framework's own backward pass, towards the weights, and through the search where that
    is differentiated, and the optimizer. The rest of the time is arithmetic on perturbations.
    Multiply-adds say what a step asks for, whatever the time that its operations take.
    """
    model, x, y = subject
    losses = {
        f"{way}: loss": partial(_loss, defense, model, x, y) for way, defense in DEFENSES.items()
    }
    counted = {way: Counted(model) for way in DEFENSES}
    for way, defense in DEFENSES.items():
        _loss(defense, counted[way], x, y)
    whole = calls_of("torch", model, x, y.numpy())
    work = {way: _multiply_adds(step) for way, step in whole.items()}
    calls = whole | losses | each_pass(model, x, counted.values())
    once = alternated(calls, base="plain", rounds=rounds)
    for way, count in counted.items():
        yield {
            "subject": title,
            "way": way,
            "forward_passes": count.examples(FORWARD) / len(x),  # of an example
            "input_gradients": count.examples(BACKWARD) / len(x),
            "multiply_adds": work[way] / work["plain"],
            "ratio": once[way].ratio,
            "passes_share": count.seconds_alone(once) / once[way].seconds,
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
