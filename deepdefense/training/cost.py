"""Measure how much longer a hardening step takes than a step of plain training.

Both kinds of steps are timed on the same batches, before training starts.
"""

from __future__ import annotations

import math
import statistics
import time
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple

from deepdefense.defenses.objective import Objective
from deepdefense.evaluation.dataset import Dataset
from deepdefense.seam.training_contract import Trainer, TrainingBackend
from deepdefense.training.epoch import draw_batches, take_step
from deepdefense.training.recipe import Recipe

__all__ = ["Cost", "CostMeasurement", "measure_cost"]

# The number of plain steps, and of hardening steps, that are timed. One more step of each kind runs
# first and is not counted, because it includes compilation.
TIMED_PAIRS = 5


@dataclass(frozen=True)
class Cost:
    """The median durations of a step of plain training and of a hardening step, in seconds.

    `ratio` is the duration of the hardening step divided by that of the plain step.
    """

    plain_step_seconds: float
    hardening_step_seconds: float
    ratio: float


class CostMeasurement(NamedTuple):
    """The result of `measure_cost`: the cost, and the median norm of the gradients.

    `gradient` is the median 2-norm of the gradients of the hardening steps. It is inf if none of
    these gradients was finite.
    """

    cost: Cost
    gradient: float


def measure_cost(
    backend: TrainingBackend, trainer: Trainer, data: Dataset, defense: Objective, recipe: Recipe
) -> CostMeasurement:
    """Return the median durations of plain and hardening steps, and the median gradient norm.

    A plain step minimises the cross-entropy alone, a hardening step minimises `defense`. The
    trainer is restored to its initial state at the end.
    """
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
                result = take_step(backend, trainer, objective, x, y, lr=0.0, mode=recipe.mode)
                seconds.append(time.perf_counter() - start)
                if result is not None and objective is defense:
                    gradients.append(result.gradient)
    trainer.restore(initial_state)
    plain, hardening = _warm_median(plain_seconds), _warm_median(hardening_seconds)
    cost = Cost(plain, hardening, hardening / plain)
    return CostMeasurement(cost, statistics.median(gradients) if gradients else math.inf)


def _warm_median(seconds: list[float]) -> float:
    """Return the median duration of all steps but the first, which includes compilation.

    If there is only one step, return its duration.
    """
    return statistics.median(seconds[1:] or seconds)
