"""Train period by period, undo periods that fail, and resume an interrupted run.

The periods are epochs or, with `Recipe.optimizer_steps`, ten parts of equally many steps.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from deepdefense.defenses.objective import Objective
from deepdefense.seam.progress import Watcher
from deepdefense.seam.training_contract import Trainer, Weights
from deepdefense.training.epoch import EpochResult, RejectedEpochError, train_epoch
from deepdefense.training.guard import Guard
from deepdefense.training.history import EpochRecord, Progress
from deepdefense.training.monitor import Monitor
from deepdefense.training.recipe import Recipe

__all__ = ["Checkpoint", "run_training"]

# The range of the drop in training accuracy that is allowed without `max_accuracy_drop`. A drop of
# 0.10 is always allowed, because an overfitted network may forget examples that it had memorised.
COLLAPSE_DROP = (0.10, 0.25)

PROGRESS_LINES = 10  # about this many periods of a training run are announced, evenly spaced


class Checkpoint(Protocol):
    """A store for the state after the last accepted period, so that a run can be resumed.

    `run_training` calls `load` once at the start, and `save` after each attempt at a period.
    """

    def load(self) -> tuple[Weights, dict[str, Any]] | None:
        """Return the arrays and the JSON data of the last `save`, or None if nothing is saved."""
        ...

    def save(self, arrays: Mapping[str, npt.NDArray[Any]], about: Mapping[str, Any]) -> None:
        """Replace the saved state by the trainer's arrays and the JSON data `about`."""
        ...


def run_training(
    name: str,
    trainer: Trainer,
    monitor: Monitor,
    *,
    recipe: Recipe,
    objective: Objective,
    guard: Guard | None = None,
    checkpoint: Checkpoint | None,
    watcher: Watcher,
) -> Progress:
    """Train for the recipe's periods, undo each period that fails, and return the progress.

    A period fails if its loss, gradient or weights are not finite, or if accuracy has fallen
    further than the guard allows. The trainer then returns to its state after the last accepted
    period, and repeats the failed period at half the learning rate. If the period also fails on the
    guard's last retry, training ends with the weights of the last accepted period.

    Without a guard, the first period that fails ends training, accuracy may fall by any amount, and
    rho_2 is not measured. Nor is it if the monitor has no `curve_rows`.

    If the checkpoint has a saved state labelled `name`, training resumes from it, with the same
    result as a run without interruption.
    """
    x, y = monitor.select_training_data()
    period_name, periods = recipe.period_name, recipe.periods
    initial_accuracy = monitor.measure_guard_accuracy(trainer.model) if guard else 0.0
    progress, good_state = Progress(period_name), trainer.state()
    saved = checkpoint.load() if checkpoint else None
    if saved and saved[1]["stage"] == name:
        good_state, progress = saved[0], Progress.from_saved(saved[1]["progress"])
        trainer.restore(good_state)
        watcher.say(f"resumed after {period_name} {len(progress.history)} of {periods}")
    watcher.begin(name, recipe.count_steps(len(x), periods))
    while not progress.is_finished(periods):
        done = len(progress.history)

        def advance(step: int, before: int = recipe.count_steps(len(x), done)) -> None:
            watcher.advance(before + step)

        try:
            result = train_epoch(
                monitor.backend,
                trainer,
                x,
                y,
                recipe=replace(recipe, lr=recipe.lr * 0.5**progress.halvings),
                objective=objective,
                epoch=done,
                mean=monitor.data.mean,
                progress=advance,
            )
            state = trainer.state()
            _check_finite(state, f"{period_name} {done + 1}")
            if guard:
                _check_accuracy(
                    monitor, trainer.model, initial_accuracy, guard, f"{period_name} {done + 1}"
                )
        except RejectedEpochError as error:
            trainer.restore(good_state)
            progress = progress.reject_epoch(str(error), guard.retries if guard else 0)
            watcher.say(f"stopped: {progress.stopped}" if progress.stopped else progress.notes[-1])
        else:
            good_state = state
            with_rho = bool(guard) and len(monitor.curve_rows) > 0
            record = _make_record(monitor, trainer.model, progress, result, with_rho=with_rho)
            progress = progress.accept_epoch(record)
            if guard and guard.patience is not None:
                rho = monitor.measure_guard_rho(trainer.model)
                progress = progress.watch_plateau(rho, guard.patience)
            _announce_epoch(name, record, recipe, watcher)
        if checkpoint:
            checkpoint.save(good_state, {"stage": name, "progress": asdict(progress)})
    return progress


def _check_finite(state: Mapping[str, npt.NDArray[Any]], period: str) -> None:
    """Raise `RejectedEpochError` unless all weights and the optimizer's state are finite.

    `period` names the period in the message, such as "epoch 3".
    """
    if not all(np.isfinite(value).all() for value in state.values()):
        raise RejectedEpochError(f"the weights were no longer finite after {period}")


def _check_accuracy(
    monitor: Monitor, model: Any, initial_accuracy: float, guard: Guard, period: str
) -> None:
    """Raise `RejectedEpochError` if accuracy has fallen too far since the start of training.

    The largest allowed drop is the guard's `max_accuracy_drop`. If that is None, it is
    0.5 * (initial accuracy - 1 / classes), clipped to the range `COLLAPSE_DROP`.
    """
    accuracy = monitor.measure_guard_accuracy(model)
    drop = guard.max_accuracy_drop
    if drop is None:
        lead = initial_accuracy - 1 / monitor.data.classes
        allowed = float(np.clip(lead / 2, *COLLAPSE_DROP))
        failure = f"training accuracy collapsed in {period}"
    else:
        allowed = drop
        failure = f"accuracy on the examples set aside fell by more than {drop:.1%} in {period}"
    if accuracy < initial_accuracy - allowed:
        raise RejectedEpochError(f"{failure}: {accuracy:.1%}, from {initial_accuracy:.1%}")


def _make_record(
    monitor: Monitor, model: Any, progress: Progress, result: EpochResult, *, with_rho: bool
) -> EpochRecord:
    """Measure the network on held-out examples, and return the record of the period.

    `progress` is the progress before the period.
    """
    means, (accuracy, rho_2) = result.means, monitor.measure_held_out(model, with_rho=with_rho)
    return EpochRecord(
        epoch=len(progress.history) + 1,
        steps=progress.steps + result.steps,
        loss=means.total,
        cross_entropy=means.cross_entropy,
        penalty=means.penalty,
        unfinished=means.unfinished,
        accuracy=accuracy,
        rho_2=rho_2,
        gradient=means.gradient,
        seconds=result.seconds,
        iterations=means.iterations,
    )


def _announce_epoch(name: str, record: EpochRecord, recipe: Recipe, watcher: Watcher) -> None:
    """Announce about `PROGRESS_LINES` periods, evenly spaced, and the last, in a line each."""
    if record.epoch % max(1, recipe.periods // PROGRESS_LINES) and record.epoch < recipe.periods:
        return
    rho = "" if record.rho_2 is None else f", rho_2 {record.rho_2:.4f}"
    watcher.say(
        f"{name} {recipe.period_name} {record.epoch}/{recipe.periods}: loss {record.loss:.4f}, "
        f"held-out accuracy {record.accuracy:.2%}{rho}, {record.seconds:.1f} s"
    )
