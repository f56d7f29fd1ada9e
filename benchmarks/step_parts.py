"""Measure the parts of a hardening step in PyTorch.

These are the passes through the network, their share of the time, and the memory for the backward
pass. This module also measures the error of the approximate penalties.
"""

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
FORWARD, BACKWARD = "forward", "towards the input"  # the two values of `Pass.kind`


class Pass(NamedTuple):
    """A forward pass of `size` examples, or a backward pass from the logits to the input.

    One backward pass may compute the input gradients of several `classes`.
    """

    kind: str
    size: int
    classes: int = 1


class PassCounter(nn.Module):
    """A model that counts its forward and backward passes by kind, batch size and classes."""

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
        # Under vmap, `gradient` has the shape for one class, even if it holds the gradients of
        # several classes. Only private functions of torch tell how many classes it holds.
        batched = torch._C._functorch.is_batchedtensor(gradient)
        every = torch._C._functorch.get_unwrapped(gradient) if batched else gradient
        self.passes[Pass(BACKWARD, len(gradient), every.numel() // gradient.numel())] += 1

    def count_examples(self, kind: str) -> int:
        """Return the sum, over all passes of this kind, of batch size times classes."""
        return sum(one.size * one.classes * n for one, n in self.passes.items() if one.kind == kind)

    def sum_seconds(self, timings: Mapping[str, Timing]) -> float:
        """Return the total seconds of all counted passes, from the seconds of each pass alone."""
        return sum(n * timings[str(one)].seconds for one, n in self.passes.items())


def _compute_loss(objective: Objective, model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    total: Tensor = objective.losses(get_backend("torch"), model, model, x, y).total
    return total


def make_passes(
    model: nn.Module, x: Tensor, counters: Iterable[PassCounter]
) -> dict[str, Callable[[], object]]:
    """Return, for every counted pass, a function that runs this pass and nothing else."""
    calls: dict[str, Callable[[], object]] = {}
    # The returned functions keep autograd graphs. An optimizer step writes to the weights, even
    # with learning rate 0, and would invalidate the graphs. Therefore they use a copy of the model.
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
    """Count the multiply-adds in the matrix products and convolutions of a training step."""
    with FlopCounterMode(display=False) as counter:
        step()
    return counter.get_total_flops() // 2  # PyTorch counts a multiply-add as two operations


def measure_passes(title: str, subject: Subject, rounds: int) -> Iterator[dict[str, Any]]:
    """Count the passes of each method's step, and measure their share of the step's time.

    Each row has these values, among others:

    - `passes_share`: the share of the step's time that the forward passes and input gradients take,
      including the passes of the cross-entropy. Each pass is timed alone with its batch size.
    - `backward_share`: the share that the optimizer and the backward pass to the weights take. If
      the search is differentiated, this backward pass also goes through the search.
    - `multiply_adds`: the multiply-adds of the step, relative to a plain step. They do not depend
      on the speed of the machine.

    The rest of the step's time is arithmetic on perturbations.
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
            "forward_passes": counter.count_examples(FORWARD) / len(x),  # mean over the examples
            "input_gradients": counter.count_examples(BACKWARD) / len(x),
            "multiply_adds": work[method] / work["plain"],
            "ratio": timings[method].ratio,
            "passes_share": counter.sum_seconds(timings) / timings[method].seconds,
            "backward_share": 1 - timings[f"{method}: loss"].seconds / timings[method].seconds,
        }


def measure_approximation(
    kind: str, weights: Mapping[str, np.ndarray], data: Dataset
) -> Iterator[dict[str, Any]]:
    """Measure the relative error of each method's rho on test images, compared with "exact"."""
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
    """A tensor that an autograd graph keeps for its backward pass, in an object of its own.

    While the graph exists, it keeps this object alive, so a weak reference shows what is kept.
    """

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor


def _measure_saved_bytes(compute_loss: Any, excluded: set[int]) -> tuple[int, int]:
    """Return the bytes that autograd graphs keep for backward passes: the peak, and at the end.

    The peak is taken while `compute_loss` runs. The second value is measured when it has returned
    the loss. Storages whose addresses are in `excluded` are not counted.
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
        saved = _SavedTensor(tensor.detach())  # with its graph, the tensor would keep itself alive
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
    """Measure the bytes kept for backward passes, except those of the weights and the images."""
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
