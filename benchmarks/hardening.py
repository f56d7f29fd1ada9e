"""A hardening step in plain steps."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from benchmarks import subjects
from benchmarks.subjects import BATCH, CLASSES
from benchmarks.timing import alternated
from deepdefense.defenses.deep_defense import DeepDefense
from deepdefense.defenses.objective import Objective
from deepdefense.evaluation.dataset import Dataset
from deepdefense.seam.training import training_backend
from deepdefense.training.epoch import take_step
from deepdefense.training.recipe import Recipe
from deepdefense.zoo import NETWORKS

__all__ = ["DEFENSES", "calls_of", "many_classes", "steps"]

DEFENSES: Mapping[str, Objective] = {
    "plain": Objective(),
    "exact": DeepDefense(),
    "implicit": DeepDefense(gradient="implicit"),
    "implicit, 3 candidates": DeepDefense(gradient="implicit", candidates=3),
    "fast": DeepDefense.fast(),
}


def calls_of(framework: str, model: Any, x: Any, y: Any) -> dict[str, Callable[[], object]]:
    """An optimizer step for each way, with rate 0, so that all of them see one network."""
    backend = training_backend(framework)
    trainer = Recipe().make_trainer(backend, model)

    def call(objective: Objective) -> Callable[[], object]:
        return lambda: take_step(backend, trainer, objective, x, y, lr=0.0)

    return {way: call(objective) for way, objective in DEFENSES.items()}


def _rows(subject: str, calls: Mapping[str, Callable[[], object]], rounds: int) -> Iterator[Any]:
    for way, timing in alternated(calls, base="plain", rounds=rounds).items():
        yield {"subject": subject, "way": way, **timing._asdict()}


def steps(
    framework: str, kind: str, weights: Mapping[str, np.ndarray], data: Dataset, rounds: int
) -> Iterator[dict[str, Any]]:
    """Each way to harden a trained network of the zoo, as a multiple of a plain step."""
    network = NETWORKS[kind](data.x_train.shape[1:], data.classes)
    model = training_backend(framework).build(network, weights)
    x, y = data.x_train[:BATCH], data.y_train[:BATCH]
    yield from _rows(f"{framework}, {kind}", calls_of(framework, model, x, y), rounds)


def many_classes(rounds: int) -> Iterator[dict[str, Any]]:
    """The same for a ResNet-18-shaped network of 1,000 classes, in PyTorch."""
    model, x, y = subjects.many_classes()
    calls = calls_of("torch", model, x, y.numpy())
    yield from _rows(f"torch, resnet18-shaped, {CLASSES} classes", calls, rounds)
