"""One epoch: batches in a seeded order, one native step for each."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from deepdefense.defenses.objective import Objective, make_loss_function
from deepdefense.seam.contract import Array
from deepdefense.seam.training import StepResult, Trainer, TrainingBackend
from deepdefense.training.augmentation import augment
from deepdefense.training.recipe import Recipe

__all__ = ["DivergedError", "EpochResult", "draw_batches", "take_step", "train_epoch"]


class DivergedError(RuntimeError):
    """Training has left the finite numbers; the message says where."""


class EpochResult(NamedTuple):
    """One epoch: the means over its steps, and how long it took."""

    means: StepResult
    seconds: float


def draw_batches(count: int, size: int, *seed: int) -> Iterator[npt.NDArray[np.int64]]:
    """Row numbers of all examples in an order that the seed fixes, `size` at a time.

    One that would be left over alone joins those before: batch norm has no variance of one example.
    """
    order = np.random.default_rng(seed).permutation(count)
    ends = [*range(0, count, size), count]
    if len(ends) > 2 and count - ends[-2] == 1 < size:
        del ends[-2]
    return (order[begin:end] for begin, end in pairwise(ends))


def take_step(
    backend: TrainingBackend,
    trainer: Trainer,
    objective: Objective,
    x: Any,
    y: Any,
    *,
    lr: float,
    clip: float = math.inf,
) -> StepResult | None:
    """One step on a batch of the host; None, and no parameter changed, if it is not finite."""
    batch = backend.asarray(x, trainer.model)
    labels = backend.index(y, int(y.max()) + 1, batch)  # their range is the losses' to check
    points = objective.points(trainer.model, batch, labels)
    loss = make_loss_function(backend, objective)
    taken = trainer.step(loss, batch, labels, *points, lr=lr, clip=clip)
    if taken is not None and objective.has_constraint:
        trainer.update_weights(lambda weights: objective.constrain(backend, weights))
    return taken


def train_epoch(
    backend: TrainingBackend,
    trainer: Trainer,
    x: Array,
    y: Array,
    *,
    recipe: Recipe,
    objective: Objective,
    epoch: int,
    mean: Array | None = None,
    progress: Callable[[int], object] = lambda done: None,
) -> EpochResult:
    """One pass over the training set, which depends on nothing but the trainer and the arguments.

    `mean` is what was subtracted from the pixels of images, and does not move with them.
    Raises `DivergedError` at the first step whose loss or gradient is not finite.
    """
    began, found = time.perf_counter(), []
    steps = -(-len(x) // recipe.batch_size)
    clip = recipe.clip if isinstance(recipe.clip, float | int) else math.inf
    random = np.random.default_rng((recipe.seed, epoch, 1))
    with backend.fixed_seed(recipe.seed, epoch):
        for step, rows in enumerate(draw_batches(len(x), recipe.batch_size, recipe.seed, epoch), 1):
            rate = recipe.rate(epoch, step / steps)
            batch = augment(x[rows], random, mean=mean, **recipe.augmentation)
            taken = take_step(backend, trainer, objective, batch, y[rows], lr=rate, clip=clip)
            if taken is None:
                raise DivergedError(
                    f"the loss or its gradient was no longer finite in step {step} of "
                    f"epoch {epoch + 1}"
                )
            found.append((len(rows), *taken))
            progress(step)
    counts, *terms = np.array(found, dtype=np.float64).T
    means = StepResult(*(float(np.average(term, weights=counts)) for term in terms))
    return EpochResult(means, time.perf_counter() - began)
