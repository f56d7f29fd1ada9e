"""The training loop, epoch by epoch: it resumes from a checkpoint, and rejects bad epochs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from deepdefense.defenses.objective import Objective
from deepdefense.seam.progress import Watcher
from deepdefense.seam.training import Trainer, Weights
from deepdefense.training.epoch import EpochResult, RejectedEpochError, count_steps, train_epoch
from deepdefense.training.guard import Guard
from deepdefense.training.history import EpochRecord, Progress
from deepdefense.training.monitor import Monitor
from deepdefense.training.recipe import Recipe

__all__ = ["Checkpoint", "run_training"]

# Without `max_accuracy_drop`, training accuracy has collapsed once it has lost half of its lead
# over guessing. The limits, in accuracy: a smaller loss than the first is accepted, because an
# overfitted network may lose what it has memorised; a larger loss than the second is not.
COLLAPSE_DROP = (0.10, 0.25)

PROGRESS_LINES = 10  # the training announces about this many of its epochs


class Checkpoint(Protocol):
    """The last complete epoch of a training, kept so that an interrupted run can be resumed."""

    def load(self) -> tuple[Weights, dict[str, Any]] | None:
        """Return the arrays and facts that were saved last, or None."""
        ...

    def save(self, arrays: Mapping[str, npt.NDArray[Any]], about: Mapping[str, Any]) -> None:
        """Replace what was saved."""
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
    """Train for the recipe's epochs, and reject those that fail.

    An epoch fails if its loss, gradient or weights are not finite, or if accuracy has then fallen
    further than the guard allows. The trainer goes back to the last good epoch, and tries again at
    half the learning rate; after the guard's last retry training stops there. Without a guard there
    is no retry, accuracy is not limited, and no rho_2 is measured.

    The checkpoint is saved after each attempt. An interrupted training of the same `name` resumes
    from it, to the same result.
    """
    x, y = monitor.select_training_data()
    steps = count_steps(len(x), recipe.batch_size)
    initial_accuracy = monitor.measure_guard_accuracy(trainer.model) if guard else 0.0
    progress, good_state = Progress(), trainer.state()
    saved = checkpoint.load() if checkpoint else None
    if saved and saved[1]["stage"] == name:
        good_state, progress = saved[0], Progress.from_saved(saved[1]["progress"])
        trainer.restore(good_state)
        watcher.say(f"resumed after epoch {len(progress.history)} of {recipe.epochs}")
    watcher.begin(name, recipe.epochs * steps)
    while not progress.is_finished(recipe.epochs):
        done = len(progress.history)

        def advance(step: int, before: int = done * steps) -> None:
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
            _check_finite(state, done + 1)
            if guard:
                _check_accuracy(monitor, trainer.model, initial_accuracy, guard, done + 1)
        except RejectedEpochError as error:
            trainer.restore(good_state)
            progress = progress.reject_epoch(str(error), guard.retries if guard else 0)
            watcher.say(f"stopped: {progress.stopped}" if progress.stopped else progress.notes[-1])
        else:
            good_state = state
            record = _make_record(monitor, trainer.model, done + 1, result, with_rho=bool(guard))
            progress = progress.accept_epoch(record)
            if guard and guard.patience is not None:
                rho = monitor.measure_guard_rho(trainer.model)
                progress = progress.watch_plateau(rho, guard.patience)
            _announce_epoch(name, record, recipe, watcher)
        if checkpoint:
            checkpoint.save(good_state, {"stage": name, "progress": asdict(progress)})
    return progress


def _check_finite(state: Mapping[str, npt.NDArray[Any]], epoch: int) -> None:
    """Raise `RejectedEpochError` unless every number of the trainer's state is finite."""
    if not all(np.isfinite(value).all() for value in state.values()):
        raise RejectedEpochError(f"the weights were no longer finite after epoch {epoch}")


def _check_accuracy(
    monitor: Monitor, model: Any, initial_accuracy: float, guard: Guard, epoch: int
) -> None:
    """Raise `RejectedEpochError` if accuracy has fallen further than the guard allows."""
    accuracy = monitor.measure_guard_accuracy(model)
    drop = guard.max_accuracy_drop
    if drop is None:
        lead = initial_accuracy - 1 / monitor.data.classes
        allowed = float(np.clip(lead / 2, *COLLAPSE_DROP))
        failure = f"training accuracy collapsed in epoch {epoch}"
    else:
        allowed = drop
        failure = (
            f"accuracy on the examples set aside fell by more than {drop:.1%} in epoch {epoch}"
        )
    if accuracy < initial_accuracy - allowed:
        raise RejectedEpochError(f"{failure}: {accuracy:.1%}, from {initial_accuracy:.1%}")


def _make_record(
    monitor: Monitor, model: Any, epoch: int, result: EpochResult, *, with_rho: bool
) -> EpochRecord:
    """Return the record of an epoch, with the network's figures on held-out examples."""
    means, (accuracy, rho_2) = result.means, monitor.measure_held_out(model, with_rho=with_rho)
    return EpochRecord(
        epoch=epoch,
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
    """Say how the epoch went, for about `PROGRESS_LINES` of all epochs and the last one."""
    if record.epoch % max(1, recipe.epochs // PROGRESS_LINES) and record.epoch < recipe.epochs:
        return
    rho = "" if record.rho_2 is None else f", rho_2 {record.rho_2:.4f}"
    watcher.say(
        f"{name} epoch {record.epoch}/{recipe.epochs}: loss {record.loss:.4f}, "
        f"held-out accuracy {record.accuracy:.2%}{rho}, {record.seconds:.1f} s"
    )
