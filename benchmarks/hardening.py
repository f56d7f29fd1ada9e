"""Measure the time of a hardening step as a multiple of a plain training step."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from benchmarks.subjects import BATCH, LARGE, make_large_subject
from benchmarks.timing import time_alternately
from deepdefense.defenses.deep_defense import DeepDefense
from deepdefense.defenses.objective import Objective
from deepdefense.evaluation.dataset import Dataset
from deepdefense.seam.training_contract import training_backend
from deepdefense.training.epoch import take_step
from deepdefense.training.recipe import Recipe
from deepdefense.zoo import NETWORKS

__all__ = ["METHODS", "make_steps", "measure_large_steps", "measure_steps"]

# The training objectives that are compared; "plain" is the cross-entropy alone.
METHODS: Mapping[str, Objective] = {
    "plain": Objective(),
    "exact": DeepDefense(),
    "implicit": DeepDefense(gradient="implicit"),
    "implicit, 3 candidates": DeepDefense(gradient="implicit", candidates=3),
    "fast": DeepDefense.fast(),
}


def make_steps(framework: str, model: Any, x: Any, y: Any) -> dict[str, Callable[[], object]]:
    """Return for every method a function that takes one optimizer step on the batch x, y.

    The learning rate is 0, so the weights do not change and all methods use the same network.
    """
    backend = training_backend(framework)
    trainer = Recipe().make_trainer(backend, model)

    def make_step(objective: Objective) -> Callable[[], object]:
        return lambda: take_step(backend, trainer, objective, x, y, lr=0.0)

    return {method: make_step(objective) for method, objective in METHODS.items()}


def _time_steps(
    subject: str, steps: Mapping[str, Callable[[], object]], rounds: int
) -> Iterator[Any]:
    for method, timing in time_alternately(steps, base="plain", rounds=rounds).items():
        yield {"subject": subject, "way": method, **timing._asdict()}


def measure_steps(
    framework: str, kind: str, weights: Mapping[str, np.ndarray], data: Dataset, rounds: int
) -> Iterator[dict[str, Any]]:
    """Time the step of every method on a trained network of the zoo."""
    network = NETWORKS[kind](data.x_train.shape[1:], data.classes)
    model = training_backend(framework).build(network, weights)
    x, y = data.x_train[:BATCH], data.y_train[:BATCH]
    yield from _time_steps(f"{framework}, {kind}", make_steps(framework, model, x, y), rounds)


def measure_large_steps(rounds: int) -> Iterator[dict[str, Any]]:
    """Time the step of every method on a network with the layers of ResNet-18, in PyTorch."""
    model, x, y = make_large_subject()
    yield from _time_steps(f"torch, {LARGE}", make_steps("torch", model, x, y.numpy()), rounds)
