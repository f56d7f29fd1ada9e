"""One epoch of training: batches in a seeded order, and one optimizer step for each."""

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

__all__ = [
    "EpochResult",
    "RejectedEpochError",
    "count_steps",
    "draw_batches",
    "take_step",
    "train_epoch",
]


class RejectedEpochError(RuntimeError):
    """An epoch that must not be kept; the message says why."""


class EpochResult(NamedTuple):
    """The means over the steps of one epoch, and its duration in seconds."""

    means: StepResult
    seconds: float


def draw_batches(count: int, size: int, *seed: int) -> Iterator[npt.NDArray[np.int64]]:
    """Yield the row numbers of all `count` examples, `size` at a time, in the order of the seed.

    If a single example is left at the end, it joins the batch before it, because batch norm has no
    variance for a batch of one.
    """
    order = np.random.default_rng(seed).permutation(count)
    ends = [*range(0, count, size), count]
    if len(ends) > 2 and count - ends[-2] == 1 < size:
        del ends[-2]
    return (order[begin:end] for begin, end in pairwise(ends))


def count_steps(examples: int, batch_size: int) -> int:
    """Return the number of steps in an epoch, ceil(examples / batch_size).

    An epoch takes one step less where `draw_batches` joins the last example to a batch.
    """
    return -(-examples // batch_size)


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
    """Train on one batch in host memory: the objective's points, an update, its constraint.

    Returns None, and changes no parameter, if the losses or the gradient are not finite.
    """
    batch = backend.asarray(x, trainer.model)
    labels = backend.index(y, int(y.max()) + 1, batch)  # `losses` checks them against the logits
    points = objective.points(trainer.model, batch, labels)
    loss = make_loss_function(backend, objective)
    result = trainer.step(loss, batch, labels, *points, lr=lr, clip=clip)
    if result is not None and objective.has_constraint:
        trainer.update_weights(lambda weights: objective.constrain(backend, weights))
    return result


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
    """Train once on every example; the result depends only on the trainer and the arguments.

    Args:
        backend: the framework of the model.
        trainer: the model with its optimizer.
        x: examples [n ...], in host memory.
        y: labels [n], in host memory.
        recipe: learning rate, batch size, clip, augmentation and seed.
        objective: what to minimise.
        epoch: the number of the epoch, from 0.
        mean: the mean image that was subtracted from the pixels. Augmentation does not move it.
        progress: called with the number of steps done, after each step.

    Raises:
        RejectedEpochError: the loss or the gradient of a step is not finite.
    """
    start, results = time.perf_counter(), []
    steps = count_steps(len(x), recipe.batch_size)
    clip = recipe.clip if isinstance(recipe.clip, float | int) else math.inf
    random = np.random.default_rng((recipe.seed, epoch, 1))
    with backend.fixed_seed(recipe.seed, epoch):
        batches = draw_batches(len(x), recipe.batch_size, recipe.seed, epoch)
        for step, rows in enumerate(batches, 1):
            rate = recipe.rate(epoch, step / steps)
            batch = augment(x[rows], random, mean=mean, **recipe.augmentation)
            result = take_step(backend, trainer, objective, batch, y[rows], lr=rate, clip=clip)
            if result is None:
                raise RejectedEpochError(
                    f"the loss or its gradient was no longer finite in step {step} of "
                    f"epoch {epoch + 1}"
                )
            results.append((len(rows), *result))
            progress(step)
    counts, *terms = np.array(results, dtype=np.float64).T
    means = StepResult(*(float(np.average(term, weights=counts)) for term in terms))
    return EpochResult(means, time.perf_counter() - start)
