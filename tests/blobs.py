"""A small data set on which tests harden networks, and a watcher that interrupts a run."""

from __future__ import annotations

from typing import Any

import numpy as np

import deepdefense as dd
from deepdefense.evaluation.rho_protocol import Summary, measure_rho, summarize_rho
from deepdefense.seam.choosing import backend_for
from deepdefense.seam.progress import Watcher

RECIPE = dd.Recipe(epochs=3, lr=0.01, batch_size=20, seed=1)
DEFENSE = dd.DeepDefense(lam=2.0, c=2.0, steps=3)


def draw_blobs(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw examples [n 1 4 4] and labels [n] of three classes, each class around one point.

    Twelve of the sixteen coordinates hardly vary and carry no information. A network stays
    sensitive to these coordinates under ordinary training, but not under hardening.
    """
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 3, n)
    centres = np.array([[2.0, 0, 0, 1], [0, 2.0, 1, 0], [-1, -1, 1, 1]])
    informative = centres[y] + 0.5 * rng.normal(size=(n, 4))
    return np.concatenate([informative, 0.05 * rng.normal(size=(n, 12))], 1).reshape(n, 1, 4, 4), y


TRAIN, TEST = draw_blobs(150, 0), draw_blobs(60, 1)


def summarize(model: Any, x: Any, y: Any) -> Summary:
    """Return accuracy and rho_2 as `evaluate` measures them, without other attacks and checks."""
    return summarize_rho(measure_rho(model, x, y, backend=backend_for(model, x)))


class Interrupt(Watcher):
    """A watcher that raises `KeyboardInterrupt` after `at` units of a task."""

    def __init__(self, task: str, at: int) -> None:
        self.task, self.at, self.now = task, at, ""

    def begin(self, task: str, total: int) -> None:
        self.now = task

    def advance(self, done: int) -> None:
        if self.now == self.task and done >= self.at:
            raise KeyboardInterrupt
