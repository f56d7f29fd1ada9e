"""The cost of hardening: plain and hardening steps, timed on the same batches before training."""

from __future__ import annotations

import math
import statistics
import time
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple

from deepdefense.defenses.objective import Objective
from deepdefense.evaluation.dataset import Dataset
from deepdefense.seam.training import Trainer, TrainingBackend
from deepdefense.training.epoch import draw_batches, take_step
from deepdefense.training.recipe import Recipe

__all__ = ["Cost", "CostMeasurement", "measure_cost"]

TIMED_PAIRS = 5  # a pair is a plain step and a hardening step


@dataclass(frozen=True)
class Cost:
    """Median seconds of a plain step and of a hardening step, and the ratio of the two."""

    plain_step_seconds: float
    hardening_step_seconds: float
    ratio: float


class CostMeasurement(NamedTuple):
    """The cost, and the median 2-norm of the gradients of the hardening steps.

    `gradient` is inf if none of these gradients was finite.
    """

    cost: Cost
    gradient: float


def measure_cost(
    backend: TrainingBackend, trainer: Trainer, data: Dataset, defense: Objective, recipe: Recipe
) -> CostMeasurement:
    """Time plain and hardening steps in turn, at learning rate 0, and restore the trainer."""
    initial_state = trainer.state()
    plain_seconds: list[float] = []
    hardening_seconds: list[float] = []
    gradients: list[float] = []
    with backend.fixed_seed(recipe.seed):
        batches = draw_batches(len(data.x_train), recipe.batch_size, recipe.seed, 0)
        for rows in islice(batches, TIMED_PAIRS + 1):
            x, y = data.x_train[rows], data.y_train[rows]
            for objective, seconds in (
                (Objective(), plain_seconds),
                (defense, hardening_seconds),
            ):
                start = time.perf_counter()
                result = take_step(backend, trainer, objective, x, y, lr=0.0)
                seconds.append(time.perf_counter() - start)
                if result is not None and objective is defense:
                    gradients.append(result.gradient)
    trainer.restore(initial_state)
    plain, hardening = _warm_median(plain_seconds), _warm_median(hardening_seconds)
    cost = Cost(plain, hardening, hardening / plain)
    return CostMeasurement(cost, statistics.median(gradients) if gradients else math.inf)


def _warm_median(seconds: list[float]) -> float:
    """Return the median without the first time, which includes compilation, if there are others."""
    return statistics.median(seconds[1:] or seconds)
