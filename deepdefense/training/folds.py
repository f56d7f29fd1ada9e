"""Harden in stages on parts of the data, judged by the examples that these parts set aside."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from deepdefense.defenses.calibration import fit_penalty
from deepdefense.defenses.deep_defense import DeepDefense
from deepdefense.defenses.strengthened import StrengthenedDefense
from deepdefense.errors import InputError
from deepdefense.evaluation.accuracy import measure_accuracy
from deepdefense.evaluation.distances import measure_distances
from deepdefense.evaluation.statistics import quantile
from deepdefense.evaluation.subject import pick_evenly
from deepdefense.seam.progress import QuietWatcher, Watcher
from deepdefense.seam.training_contract import Trainer, TrainingBackend, Weights
from deepdefense.training.guard import Guard
from deepdefense.training.history import Progress
from deepdefense.training.loop import Checkpoint, run_training
from deepdefense.training.monitor import Monitor
from deepdefense.training.parameters import copy_parameters, interpolate_parameters
from deepdefense.training.recipe import Recipe
from deepdefense.training.stages import (
    Judge,
    Measured,
    Stage,
    Strength,
    describe_strength,
    strengthen,
)

__all__ = [
    "DISTANCE_EXAMPLES",
    "TrainingFold",
    "apply_strength",
    "climb",
    "make_fold",
    "split_into_folds",
    "train_stage",
]

# The share of the training examples that a fold sets aside, and the largest number of them.
ASIDE_SHARE, MOST_ASIDE = 0.2, 2000

# With fewer training examples, a fold would set aside less than four of them.
LEAST_EXAMPLES_TO_SPLIT = 20

# Small data sets are rehearsed in several folds, until so many examples have been set aside.
ENOUGH_ASIDE = 250
MOST_FOLDS = 5

# The largest number of examples of a fold whose distance is measured after a stage.
DISTANCE_EXAMPLES = 200

# The number of gradients that DDN and FMN compute for each of them. More hardly change the median.
STAGE_ATTACK_STEPS = 10


@dataclass
class TrainingFold:
    """A part of the data to train on, a part to judge by, and the network in between.

    - `monitor`: holds the rows to train on.
    - `x`, `y`: the examples and labels set aside, in host memory.
    - `defense`: the penalty with the c and d of steepness 1.
    - `state`: the state of the trainer after the last stage that was kept.
    - `finished`: the progress of each stage that was kept.
    """

    monitor: Monitor
    x: Any
    y: Any
    defense: DeepDefense
    state: Weights
    finished: tuple[Progress, ...] = ()


def split_into_folds(monitor: Monitor, seed: int) -> list[Monitor]:
    """Return a monitor for each fold, whose held-out examples are those set aside.

    Raises `InputError` if there are too few examples.
    """
    rows = np.random.default_rng((seed, 3)).permutation(monitor.training_rows)
    if len(rows) < LEAST_EXAMPLES_TO_SPLIT:
        raise InputError(
            f"{len(rows)} training examples are too few to set some aside, which finding the "
            f"settings needs: give at least {LEAST_EXAMPLES_TO_SPLIT}, or `recipe` and `defense`"
        )
    aside = min(math.ceil(ASIDE_SHARE * len(rows)), MOST_ASIDE)
    count = min(MOST_FOLDS, math.ceil(ENOUGH_ASIDE / aside))
    folds = []
    for start in range(0, count * aside, aside):
        held = rows[start : start + aside]
        fit = np.sort(np.concatenate([rows[:start], rows[start + aside :]]))
        data = monitor.data
        folds.append(
            replace(
                monitor,
                data=replace(data, x_test=data.x_train[held], y_test=data.y_train[held]),
                training_rows=fit,
                guard_rows=pick_evenly(fit, MOST_ASIDE),
                curve_rows=rows[:0],  # the curve of a rehearsal is not shown
            )
        )
    return folds


def make_fold(
    backend: TrainingBackend, trainer: Trainer, monitor: Monitor, defense: DeepDefense, seed: int
) -> TrainingFold:
    """Return a fold that starts from the trainer's network, with the penalty fitted to it."""
    x, y = monitor.select_training_data()
    fitted = fit_penalty(backend, trainer.model, x, y, defense, seed, 1.0)
    return TrainingFold(monitor, monitor.data.x_test, monitor.data.y_test, fitted, trainer.state())


def climb(
    backend: TrainingBackend,
    trainer: Trainer,
    folds: list[TrainingFold],
    *,
    recipe: Recipe,
    max_accuracy_drop: float | None,
    watcher: Watcher,
    task: str,
) -> tuple[Measured, tuple[Stage, ...]]:
    """Strengthen the penalty in all folds alike, judged by all examples set aside together.

    Returns the measurement before hardening, and the stages. Each fold ends with the state of the
    last accepted stage.
    """
    attempts: list[tuple[Weights, Progress]] = []

    def measure_all(states: list[Weights]) -> Measured:
        accuracies, distances = [], []
        for fold, state in zip(folds, states, strict=True):
            trainer.restore(state)
            x, y = fold.x[:DISTANCE_EXAMPLES], fold.y[:DISTANCE_EXAMPLES]
            accuracies.append(measure_accuracy(backend, trainer.model, fold.x, fold.y))
            distances.append(
                measure_distances(
                    backend, trainer.model, x, y, p=fold.defense.p, steps=STAGE_ATTACK_STEPS
                )[0]
            )
        return Measured(float(np.mean(accuracies)), quantile(np.concatenate(distances), 0.5))

    def attempt(strength: Strength) -> Measured:
        attempts.clear()
        for number, fold in enumerate(folds, 1):
            trainer.restore(fold.state)
            progress = train_stage(
                "stage",
                trainer,
                fold.monitor,
                defense=fold.defense,
                strength=strength,
                recipe=recipe,
                checkpoint=None,
                watcher=QuietWatcher(
                    watcher, f"{task}, {describe_strength(strength)}, part {number} of {len(folds)}"
                ),
            )
            attempts.append((trainer.state(), progress))
        return measure_all([state for state, _ in attempts])

    def keep() -> None:
        for fold, (state, progress) in zip(folds, attempts, strict=True):
            fold.state = state
            fold.finished = (*fold.finished, progress)

    initial = measure_all([fold.state for fold in folds])
    examples = sum(len(fold.y) for fold in folds)
    judge = Judge.from_initial(initial, examples, max_accuracy_drop)
    return initial, strengthen(attempt, keep, judge)


def train_stage(
    name: str,
    trainer: Trainer,
    monitor: Monitor,
    *,
    defense: DeepDefense,
    strength: Strength,
    recipe: Recipe,
    checkpoint: Checkpoint | None,
    watcher: Watcher,
) -> Progress:
    """Train one stage. `defense` has the c and d of steepness 1."""
    before = copy_parameters(monitor.backend, trainer) if strength.share < 1 else {}
    progress = run_training(
        name,
        trainer,
        monitor,
        recipe=recipe,
        objective=StrengthenedDefense.from_defense(apply_strength(defense, strength)),
        guard=Guard(),  # halves the learning rate if training accuracy collapses
        checkpoint=checkpoint,
        watcher=watcher,
    )
    if strength.share < 1:
        interpolate_parameters(monitor.backend, trainer, before, strength.share)
    return progress


def apply_strength(defense: DeepDefense, strength: Strength) -> DeepDefense:
    """Return the penalty of a stage. `defense` has the c and d of steepness 1."""
    c, d = (strength.steepness * value for value in (defense.c, defense.d))
    return replace(defense, c=c, d=d, lam=strength.weight * defense.lam)
