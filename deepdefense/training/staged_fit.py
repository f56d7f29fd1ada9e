"""Harden without given settings: rehearse, and train the stages that the rehearsal accepted."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy.typing as npt

from deepdefense.defenses.calibration import fit_penalty
from deepdefense.defenses.deep_defense import DeepDefense
from deepdefense.defenses.strengthened import StrengthenedDefense
from deepdefense.evaluation.distances import measure_distances
from deepdefense.evaluation.statistics import quantile
from deepdefense.seam.progress import Watcher
from deepdefense.seam.training_contract import Trainer, TrainingBackend, Weights
from deepdefense.training.cost import Cost, measure_cost
from deepdefense.training.fit import Fit, choose_clip
from deepdefense.training.folds import (
    DISTANCE_EXAMPLES,
    TrainingFold,
    apply_strength,
    climb,
    train_stage,
)
from deepdefense.training.guard import Guard
from deepdefense.training.history import EpochRecord, Progress
from deepdefense.training.loop import Checkpoint
from deepdefense.training.monitor import Monitor
from deepdefense.training.no_gain import explain_no_gain, warn_of_unlearnt_data
from deepdefense.training.recipe import Recipe
from deepdefense.training.rehearsal import Rehearsal, rehearse
from deepdefense.training.stages import PENALTY_STRENGTHS, describe_strength

__all__ = ["STAGED_PENALTY", "fit_in_stages"]

# The penalty whose c and d the stages find. Several steps of the cheapest gradient follow the
# boundary better than one, and a lam smaller than the paper's spares the accuracy of networks that
# train on few examples.
STAGED_PENALTY = DeepDefense.fast(steps=3, lam=5.0)

# The automatic gradient clip, as a share of the median norm before training. Most gradients are
# then scaled to one norm, so that a few batches of outliers cannot steer Adam.
CLIP_SHARE = 0.2

REHEARSED = "rehearsal"  # the key of the rehearsal in a checkpoint
FINISHED = "finished"  # the key of the progress of the finished stages in a checkpoint


@dataclass(frozen=True)
class _StageCheckpoint:
    """A checkpoint that also saves the rehearsal and the stages that are finished."""

    store: Checkpoint
    rehearsal: Rehearsal
    finished: tuple[Progress, ...]

    def load(self) -> tuple[Weights, dict[str, Any]] | None:
        return self.store.load()

    def save(self, arrays: Mapping[str, npt.NDArray[Any]], about: Mapping[str, Any]) -> None:
        finished = [asdict(progress) for progress in self.finished]
        self.store.save(arrays, {**about, REHEARSED: asdict(self.rehearsal), FINISHED: finished})


def fit_in_stages(
    backend: TrainingBackend,
    model: Any,
    monitor: Monitor,
    *,
    defense: DeepDefense,
    recipe: Recipe,
    guard: Guard,
    validation: tuple[Any, Any] | None,
    checkpoint: Checkpoint | None,
    watcher: Watcher,
    warn: Callable[[str], None],
) -> Fit:
    """Harden a copy of the network stage by stage, as long as accuracy holds.

    `recipe` has the settings of each stage. c and d of `defense` are replaced. `validation` are
    examples and labels in host memory that the network has never seen, to judge each stage by.
    Without them, a rehearsal chooses the stages. If the checkpoint was saved after the rehearsal,
    it is not repeated.
    """
    data = monitor.data
    trainer = recipe.make_trainer(backend, backend.copy(model))
    start = trainer.state()
    fitted = fit_penalty(backend, model, data.x_train, data.y_train, defense, recipe.seed, 1.0)
    penalty = StrengthenedDefense.from_defense(fitted)
    cost, gradient = measure_cost(backend, trainer, data, penalty, recipe)
    if recipe.clip == "auto":
        recipe = replace(recipe, clip=choose_clip(CLIP_SHARE * gradient, warn))
    _announce_stages(cost, recipe, watcher)
    run = _StagedRun(backend, trainer, monitor, fitted, recipe, guard, watcher)
    if validation is None:
        rehearsal, finished = run.rehearse_and_train(checkpoint)
    else:
        rehearsal, finished = run.train_and_validate(*validation)
    if warning := warn_of_unlearnt_data(rehearsal):
        warn(warning)
    no_gain = explain_no_gain(rehearsal, data)
    if no_gain is None and not _has_grown(backend, model, trainer, monitor, defense.p):
        no_gain = "the stages moved the boundary nearer to the training examples"
    if no_gain is not None:
        trainer.restore(start)
        warn(f"the given network is returned as it is: {no_gain}")
    last = rehearsal.accepted[-1] if rehearsal.accepted else PENALTY_STRENGTHS[0]
    return Fit(
        model=trainer.model,
        defense=apply_strength(fitted, last),
        recipe=recipe,
        history=_join_histories(finished) if no_gain is None else (),
        stopped=finished[-1].stopped if finished else None,
        notes=tuple(note for progress in finished for note in progress.notes),
        cost=cost,
        rehearsal=rehearsal,
        no_gain=no_gain,
    )


@dataclass(frozen=True)
class _StagedRun:
    """The parts of one run in stages. `fitted` is the penalty with the c and d of steepness 1."""

    backend: TrainingBackend
    trainer: Trainer
    monitor: Monitor
    fitted: DeepDefense
    recipe: Recipe
    guard: Guard
    watcher: Watcher

    def train_and_validate(self, x: Any, y: Any) -> tuple[Rehearsal, tuple[Progress, ...]]:
        """Train stages as long as they pass on the validation examples x [n ...], y [n].

        The trainer ends with the network of the last stage that passed.
        """
        fold = TrainingFold(self.monitor, x, y, self.fitted, self.trainer.state())
        given = self.monitor.measure_training_accuracy(self.trainer.model)
        initial, stages = climb(
            self.backend,
            self.trainer,
            [fold],
            recipe=self.recipe,
            max_accuracy_drop=self.guard.max_accuracy_drop,
            watcher=self.watcher,
            task="harden",
        )
        self.trainer.restore(fold.state)
        rehearsal = Rehearsal(False, given, *initial, len(y), stages)
        self.watcher.say(_describe_stages("validation", rehearsal))
        return rehearsal, fold.finished

    def rehearse_and_train(
        self, checkpoint: Checkpoint | None
    ) -> tuple[Rehearsal, tuple[Progress, ...]]:
        """Rehearse, and train the stages that the rehearsal accepts, in the given network."""
        saved = checkpoint.load() if checkpoint else None
        finished: tuple[Progress, ...] = ()
        if saved and REHEARSED in saved[1]:
            rehearsal = Rehearsal.from_saved(saved[1][REHEARSED])
            finished = tuple(map(Progress.from_saved, saved[1][FINISHED]))
        else:
            rehearsal = rehearse(
                self.backend,
                self.trainer,
                self.monitor,
                defense=self.fitted,
                recipe=self.recipe,
                max_accuracy_drop=self.guard.max_accuracy_drop,
                watcher=self.watcher,
            )
            self.watcher.say(_describe_stages("rehearsal", rehearsal))
        for number in range(len(finished), len(rehearsal.accepted)):
            progress = train_stage(
                f"harden, stage {number + 1} of {len(rehearsal.accepted)}",
                self.trainer,
                self.monitor,
                defense=self.fitted,
                strength=rehearsal.accepted[number],
                recipe=self.recipe,
                checkpoint=checkpoint and _StageCheckpoint(checkpoint, rehearsal, finished),
                watcher=self.watcher,
            )
            finished = (*finished, progress)
            if progress.stopped:
                break
        return rehearsal, finished


def _has_grown(
    backend: TrainingBackend, model: Any, trainer: Trainer, monitor: Monitor, p: float
) -> bool:
    """Return whether the median distance of training examples is larger than before hardening."""
    rows = monitor.guard_rows[:DISTANCE_EXAMPLES]
    x, y = monitor.data.x_train[rows], monitor.data.y_train[rows]
    before, after = (
        quantile(measure_distances(backend, network, x, y, p=p)[0], 0.5)
        for network in (model, trainer.model)
    )
    return after > before


def _join_histories(finished: tuple[Progress, ...]) -> tuple[EpochRecord, ...]:
    """Return the records of all stages, numbered through."""
    records: list[EpochRecord] = []
    for progress in finished:
        steps = records[-1].steps if records else 0
        first = len(records)
        records += [
            replace(record, epoch=first + record.epoch, steps=steps + record.steps)
            for record in progress.history
        ]
    return tuple(records)


def _announce_stages(cost: Cost, recipe: Recipe, watcher: Watcher) -> None:
    """Report the cost of a hardening step, and the expected duration of all stages."""
    steps = recipe.optimizer_steps or 0
    plain, hardening = cost.plain_step_seconds, cost.hardening_step_seconds
    low, high = (
        steps * (2 * plain + 2 * stages * hardening) for stages in (1, len(PENALTY_STRENGTHS))
    )
    watcher.say(
        f"a hardening step takes {cost.ratio:.1f} times a plain one; stages of {steps:,} steps, "
        f"rehearsed and then trained: about {low:.0f} to {high:.0f} s"
    )


def _describe_stages(judged_by: str, rehearsal: Rehearsal) -> str:
    """Return a line on the stages that were tried."""
    tried = "; ".join(
        f"{describe_strength(stage.strength)}: "
        f"distance {rehearsal.distance:.3g} -> {stage.distance:.3g}, "
        f"accuracy {100 * (stage.accuracy - rehearsal.plain_accuracy):+.1f} points, "
        f"{'accepted' if stage.accepted else 'rejected'}"
        for stage in rehearsal.stages
    )
    return f"{judged_by} on {rehearsal.examples:,} examples set aside: {tried}"
