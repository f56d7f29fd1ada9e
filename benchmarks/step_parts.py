"""The parts of a hardening step: passes through the network, and activations kept."""

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

from benchmarks.hardening import METHODS, make_steps
from benchmarks.subjects import Subject, make_zoo_subject
from benchmarks.timing import Timing, time_alternately
from deepdefense.defenses.deep_defense import DeepDefense
from deepdefense.defenses.objective import Objective
from deepdefense.evaluation.dataset import Dataset
from deepdefense.seam.choosing import get_backend

__all__ = [
    "BACKWARD",
    "FORWARD",
    "PassCounter",
    "make_passes",
    "measure_activations",
    "measure_approximation",
    "measure_passes",
]

TEST_IMAGES = 1000
FORWARD, BACKWARD = "forward", "towards the input"


class Pass(NamedTuple):
    """A pass of `size` examples through the network; a backward pass may serve several classes."""

    kind: str
    size: int
    classes: int = 1


class PassCounter(nn.Module):
    """A model that counts the forward passes and the input gradients, by their sizes."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.passes: Counter[Pass] = Counter()

    def forward(self, x: Tensor) -> Any:
        """Return the model's logits, and count the pass."""
        self.passes[Pass(FORWARD, len(x))] += 1
        if x.requires_grad:
            x = x.view_as(x)
            x.register_hook(self._count_gradient)
        return self.model(x)

    def _count_gradient(self, gradient: Tensor) -> None:
        # Under vmap the gradients of several classes look like one gradient. Only private functions
        # of torch reveal their number.
        batched = torch._C._functorch.is_batchedtensor(gradient)
        every = torch._C._functorch.get_unwrapped(gradient) if batched else gradient
        self.passes[Pass(BACKWARD, len(gradient), every.numel() // gradient.numel())] += 1

    def count_examples(self, kind: str) -> int:
        """Return how many examples all passes of this kind had, counted once for each class."""
        return sum(one.size * one.classes * n for one, n in self.passes.items() if one.kind == kind)

    def sum_seconds(self, timings: Mapping[str, Timing]) -> float:
        """Return the time of all passes, given the time of each pass alone."""
        return sum(n * timings[str(one)].seconds for one, n in self.passes.items())


def _compute_loss(objective: Objective, model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    total: Tensor = objective.losses(get_backend("torch"), model, model, x, y).total
    return total


def make_passes(
    model: nn.Module, x: Tensor, counters: Iterable[PassCounter]
) -> dict[str, Callable[[], object]]:
    """Return a call for every pass that was counted, which runs this pass and nothing else."""
    calls: dict[str, Callable[[], object]] = {}
    # An optimizer step writes to the weights even at a learning rate of 0, which would invalidate
    # the graphs kept here.
    unchanged = copy.deepcopy(model)
    for one in sorted({one for counter in counters for one in counter.passes}):
        if one.kind == FORWARD:
            calls[str(one)] = partial(get_backend("torch").forward, unchanged, x[: one.size])
            continue
        inputs = x[: one.size].clone().requires_grad_()
        logits = unchanged(inputs)
        calls[str(one)] = partial(
            torch.autograd.grad,
            logits,
            inputs,
            torch.ones_like(logits) if one.classes == 1 else torch.ones(one.classes, *logits.shape),
            retain_graph=True,
            is_grads_batched=one.classes > 1,
        )
    return calls


def _count_multiply_adds(step: Callable[[], object]) -> int:
    """Count those of the matrix products and convolutions of a step, forward and backward."""
    with FlopCounterMode(display=False) as counter:
        step()
    return counter.get_total_flops() // 2  # PyTorch counts a multiply-add as two operations


def measure_passes(title: str, subject: Subject, rounds: int) -> Iterator[dict[str, Any]]:
    """Measure the passes of a step and the share of its time that they account for.

    `passes_share` is the time of the forward passes and input gradients, the plain step's included,
    each timed alone at its own size. `backward_share` is the framework's backward pass to the
    weights (and through the search if that is differentiated) and the optimizer. The rest of the
    time is arithmetic on perturbations. `multiply_adds` says how much work a step asks for,
    independently of how fast the machine does it.
    """
    model, x, y = subject
    losses = {
        f"{method}: loss": partial(_compute_loss, objective, model, x, y)
        for method, objective in METHODS.items()
    }
    counters = {method: PassCounter(model) for method in METHODS}
    for method, objective in METHODS.items():
        _compute_loss(objective, counters[method], x, y)
    steps = make_steps("torch", model, x, y.numpy())
    work = {method: _count_multiply_adds(step) for method, step in steps.items()}
    calls = steps | losses | make_passes(model, x, counters.values())
    timings = time_alternately(calls, base="plain", rounds=rounds)
    for method, counter in counters.items():
        yield {
            "subject": title,
            "way": method,
            "forward_passes": counter.count_examples(FORWARD) / len(x),  # per example
            "input_gradients": counter.count_examples(BACKWARD) / len(x),
            "multiply_adds": work[method] / work["plain"],
            "ratio": timings[method].ratio,
            "passes_share": counter.sum_seconds(timings) / timings[method].seconds,
            "backward_share": 1 - timings[f"{method}: loss"].seconds / timings[method].seconds,
        }


def measure_approximation(
    kind: str, weights: Mapping[str, np.ndarray], data: Dataset
) -> Iterator[dict[str, Any]]:
    """Measure the relative error of the cheaper penalties' rho on test images."""
    model, _, _ = make_zoo_subject(kind, weights, data)
    x = torch.tensor(data.x_test[:TEST_IMAGES])
    with torch.no_grad():
        y = model.eval()(x).argmax(1)
        rho = {
            method: objective.terms(model, x, y).rho
            for method, objective in METHODS.items()
            if isinstance(objective, DeepDefense)
        }
    for method, ratios in rho.items():
        error = ratios / rho["exact"] - 1
        yield {
            "subject": f"torch, {kind}",
            "way": method,
            "images": len(x),
            "error_median": float(error.median()),
            "size_median": float(error.abs().median()),
            "size_95": float(error.abs().quantile(0.95)),
        }


class _SavedTensor:
    """A tensor that a graph keeps for its backward pass."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor


def _measure_saved_bytes(compute_loss: Any, excluded: set[int]) -> tuple[int, int]:
    """Return the most bytes that graphs keep at one time, and the bytes kept with the final loss.

    `excluded` holds the addresses of storages that do not count.
    """
    alive: weakref.WeakSet[_SavedTensor] = weakref.WeakSet()
    peak = 0

    def sum_bytes() -> int:
        storages = {saved.tensor.untyped_storage().data_ptr(): saved.tensor for saved in alive}
        return sum(
            tensor.untyped_storage().nbytes()
            for address, tensor in storages.items()
            if address not in excluded
        )

    def pack(tensor: Tensor) -> _SavedTensor:
        nonlocal peak
        saved = _SavedTensor(tensor.detach())  # a tensor with its graph would keep itself alive
        alive.add(saved)
        peak = max(peak, sum_bytes())
        return saved

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda saved: saved.tensor):
        total = compute_loss()
        final = sum_bytes()
    del total
    return peak, final


def measure_activations(
    kind: str, weights: Mapping[str, np.ndarray], data: Dataset
) -> Iterator[dict[str, Any]]:
    """Measure the bytes kept for backward passes, without the weights and the images."""
    model, x, y = make_zoo_subject(kind, weights, data)
    excluded = {p.untyped_storage().data_ptr() for p in (*model.parameters(), x)}
    plain = 0
    for method, objective in METHODS.items():
        compute_loss = partial(_compute_loss, objective, model, x, y)
        peak, final = _measure_saved_bytes(compute_loss, excluded)
        plain = plain or final  # "plain" is the first method
        yield {
            "subject": f"torch, {kind}",
            "way": method,
            "bytes": final,
            "ratio": final / plain,
            "peak_ratio": peak / plain,
        }
