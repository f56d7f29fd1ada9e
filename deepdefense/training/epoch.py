"""Train for one period: draw batches in a seeded order, and take an optimizer step on each.

A period is an epoch or, with `Recipe.optimizer_steps`, a part of an endless series of epochs.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from itertools import chain, count, islice, pairwise
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from deepdefense.defenses.objective import Objective, make_loss_function
from deepdefense.seam.contract import Array
from deepdefense.seam.training_contract import StepResult, Trainer, TrainingBackend
from deepdefense.training.augmentation import augment
from deepdefense.training.recipe import ModelMode, Recipe

__all__ = [
    "EpochResult",
    "RejectedEpochError",
    "draw_batches",
    "select_batches",
    "take_step",
    "train_epoch",
]


class RejectedEpochError(RuntimeError):
    """Raised if an epoch has failed and its weights must be discarded.

    The message gives the reason. `run_training` catches the error.
    """


class EpochResult(NamedTuple):
    """The result of `train_epoch`: the mean of its `StepResult`s, their number, and the duration.

    In the mean, the weight of each step is the number of examples in its batch.
    """

    means: StepResult
    steps: int
    seconds: float


def draw_batches(count: int, size: int, *seed: int) -> Iterator[npt.NDArray[np.int64]]:
    """Yield the batches of one epoch as arrays of row numbers, in a random order set by `seed`.

    Each of the numbers 0..count-1 occurs once. Each batch has `size` rows, and the last batch has
    the rows that remain. A single last row joins the batch before it, because batch norm cannot
    compute a variance from one example.
    """
    order = np.random.default_rng(seed).permutation(count)
    ends = [*range(0, count, size), count]
    if len(ends) > 2 and count - ends[-2] == 1 < size:
        del ends[-2]
    return (order[begin:end] for begin, end in pairwise(ends))


def select_batches(recipe: Recipe, examples: int, period: int) -> Iterator[npt.NDArray[np.int64]]:
    """Yield the batches of one period as arrays of row numbers, from 0 to `examples` - 1.

    With `optimizer_steps`, the periods divide the batches of epochs 0, 1, 2, ... among them, so a
    period may begin and end within an epoch.
    """

    def draw_epoch(epoch: int) -> Iterator[npt.NDArray[np.int64]]:
        return draw_batches(examples, recipe.batch_size, recipe.seed, epoch)

    if recipe.optimizer_steps is None:
        return draw_epoch(period)
    begin, end = (recipe.count_steps(examples, periods) for periods in (period, period + 1))
    return islice(chain.from_iterable(map(draw_epoch, count())), begin, end)


def take_step(
    backend: TrainingBackend,
    trainer: Trainer,
    objective: Objective,
    x: Any,
    y: Any,
    *,
    lr: float,
    clip: float = math.inf,
    mode: ModelMode = "training",
) -> StepResult | None:
    """Take one optimizer step on a batch of examples `x` [b ...] with labels `y` [b].

    `x` and `y` are arrays in host memory. `mode` is the mode of the network in the loss. Returns
    the losses and the gradient norm of the step. If the losses or the gradient are not finite,
    returns None and changes no parameter.
    """
    batch = backend.asarray(x, trainer.model)
    # The number of logits is not known yet, so let `index` accept every label. `losses` checks the
    # labels against the number of logits.
    labels = backend.index(y, int(y.max()) + 1, batch)
    points = objective.points(trainer.model, batch, labels)
    loss = make_loss_function(backend, objective, in_inference=mode == "inference")
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
    """Train for one period, and return the mean of the step results and the duration.

    All random draws are seeded by the recipe's seed and `epoch`, so a period can be repeated
    exactly from the same state of the trainer.

    Args:
        backend: the backend of the model's framework.
        trainer: the model with its optimizer.
        x: examples [n ...], in host memory.
        y: labels [n], in host memory.
        recipe: the learning rate, batch size, gradient clip, mode, augmentation and seed.
        objective: the objective to minimise.
        epoch: the number of the period, counted from 0.
        mean: the mean image that preprocessing has subtracted from the pixels, for `augment`.
        progress: called after each step with the number of steps done in this period.

    Raises:
        RejectedEpochError: the loss or the gradient of a step is not finite.
    """
    start, results = time.perf_counter(), []
    steps = recipe.count_steps(len(x), epoch + 1) - recipe.count_steps(len(x), epoch)
    clip = recipe.clip if isinstance(recipe.clip, float | int) else math.inf
    random = np.random.default_rng((recipe.seed, epoch, 1))
    with backend.fixed_seed(recipe.seed, epoch):
        for step, rows in enumerate(select_batches(recipe, len(x), epoch), 1):
            rate = recipe.rate(epoch, step / steps)
            batch, labels = augment(x[rows], random, mean=mean, **recipe.augmentation), y[rows]
            result = take_step(
                backend, trainer, objective, batch, labels, lr=rate, clip=clip, mode=recipe.mode
            )
            if result is None:
                raise RejectedEpochError(
                    f"the loss or its gradient was no longer finite in step {step} of "
                    f"{recipe.period_name} {epoch + 1}"
                )
            results.append((len(rows), *result))
            progress(step)
    counts, *terms = np.array(results, dtype=np.float64).T
    means = StepResult(*(float(np.average(term, weights=counts)) for term in terms))
    return EpochResult(means, len(results), time.perf_counter() - start)
