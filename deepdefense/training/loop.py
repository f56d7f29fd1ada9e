"""A stage of training, epoch by epoch, that can be interrupted, resumed and stopped in time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from deepdefense.defenses.objective import Objective
from deepdefense.seam.progress import Watcher
from deepdefense.seam.training import Trainer, Weights
from deepdefense.training.epoch import DivergedError, EpochResult, train_epoch
from deepdefense.training.guard import Guard
from deepdefense.training.monitor import Monitor
from deepdefense.training.recipe import Recipe

__all__ = ["Checkpoint", "EpochRecord", "Progress", "run_training"]

# Accuracy on training examples that loses half of its lead over guessing has collapsed, which is no
# trade-off: but not by less than the first, and always by more than the second. What an overfitted
# network has learnt by heart it may lose (a sixth, on CIFAR-10).
COLLAPSE_DROP = (0.10, 0.25)


PROGRESS_LINES = 10  # about so many lines of progress for a stage


class Checkpoint(Protocol):
    """Where a stage keeps its last complete epoch, so that an interrupted run can go on."""

    def load(self) -> tuple[Weights, dict[str, Any]] | None:
        """The arrays and facts that were saved last, or None."""
        ...

    def save(self, arrays: Mapping[str, npt.NDArray[Any]], about: Mapping[str, Any]) -> None:
        """Replace what was saved."""
        ...


@dataclass(frozen=True)
class EpochRecord:
    """One complete epoch; accuracy and rho_2 are of held-out data, rho_2 of a sample of it."""

    epoch: int
    loss: float
    cross_entropy: float
    penalty: float
    unfinished: float
    accuracy: float
    rho_2: float | None
    gradient: float  # the mean 2-norm of a step's gradient, before clipping
    seconds: float
    iterations: float | None = None  # the mean of the searches' steps; None: not kept, long ago


@dataclass(frozen=True)
class Progress:
    """How far a stage has come.

    `stopped` is why it ended before its last epoch without having reached its end; `notes` tell
    what was taken back or left out; `slower` halvings of the learning rate are in force, `tries`
    of them for the epoch at hand; `guard_rho` is rho_2 of the examples set aside, by epoch.
    """

    history: tuple[EpochRecord, ...] = ()
    stopped: str | None = None
    notes: tuple[str, ...] = ()
    slower: int = 0
    tries: int = 0
    guard_rho: tuple[float, ...] = ()
    is_settled: bool = False

    @classmethod
    def from_saved(cls, saved: Mapping[str, Any]) -> Progress:
        """What `asdict` and JSON made of one."""
        fields: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in saved.items()
        }
        fields["history"] = tuple(EpochRecord(**record) for record in saved["history"])
        return cls(**fields)

    def reject_epoch(self, why: str, retries: int) -> Progress:
        """After an epoch that does not count: try again more slowly, or stop."""
        if self.tries < retries:
            slower = self.slower + 1
            note = f"{why}: taken back, and tried again at {0.5**slower:g} of the learning rate"
            return replace(self, notes=(*self.notes, note), slower=slower, tries=self.tries + 1)
        done = len(self.history)
        kept = f"the weights of epoch {done} are kept" if done else "nothing was changed"
        advice = "Try a lower learning rate, lam or c."
        return replace(self, stopped=f"{why}; {kept}. {advice}")

    def accept_epoch(
        self, record: EpochRecord, rho: float | None, patience: int | None
    ) -> Progress:
        """After an epoch that counts; `rho` is of the examples set aside, if that is asked."""
        guard_rho = self.guard_rho if rho is None else (*self.guard_rho, rho)
        since = len(guard_rho) - 1 - int(np.argmax(guard_rho)) if guard_rho else 0
        is_settled = patience is not None and since >= patience
        note = f"ended after epoch {record.epoch}: rho_2 on the examples set aside no longer grew"
        return replace(
            self,
            history=(*self.history, record),
            notes=(*self.notes, note) if is_settled else self.notes,
            tries=0,
            guard_rho=guard_rho,
            is_settled=is_settled,
        )


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
    """Train for the recipe's epochs, and keep watch.

    After each complete epoch its state is saved as the checkpoint; an interrupted stage goes on
    from there to the same result. An epoch whose loss, gradient or weights are not finite, or after
    which accuracy has fallen further than the guard allows, is taken back and tried again at half
    the learning rate; the stage ends with the trainer at its last good epoch if that does not help.
    Without a guard nothing is watched but that numbers are finite, and no rho_2 is measured.
    """
    x, y = monitor.select_training_data()
    steps = -(-len(x) // recipe.batch_size)
    began = monitor.measure_guard_accuracy(trainer.model) if guard else 0.0
    progress, good = Progress(), trainer.state()
    saved = checkpoint.load() if checkpoint else None
    if saved and saved[1]["stage"] == name:
        good, progress = saved[0], Progress.from_saved(saved[1]["progress"])
        trainer.restore(good)
        watcher.say(f"resumed after epoch {len(progress.history)} of {recipe.epochs}")
    watcher.begin(name, recipe.epochs * steps)
    while len(progress.history) < recipe.epochs and not (progress.stopped or progress.is_settled):
        done = len(progress.history)

        def advance(step: int, before: int = done * steps) -> None:
            watcher.advance(before + step)

        try:
            epoch = train_epoch(
                monitor.backend,
                trainer,
                x,
                y,
                recipe=replace(recipe, lr=recipe.lr * 0.5**progress.slower),
                objective=objective,
                epoch=done,
                mean=monitor.data.mean,
                progress=advance,
            )
            state = trainer.state()
            _check_epoch(state, monitor, trainer.model, began, guard, done + 1)
        except DivergedError as error:
            trainer.restore(good)
            progress = progress.reject_epoch(str(error), guard.retries if guard else 0)
            watcher.say(f"stopped: {progress.stopped}" if progress.stopped else progress.notes[-1])
        else:
            good = state
            record = _make_record(monitor, trainer.model, done + 1, epoch, with_rho=bool(guard))
            patience = guard.patience if guard else None
            rho = None if patience is None else monitor.measure_guard_rho(trainer.model)
            progress = progress.accept_epoch(record, rho, patience)
            _announce_epoch(name, record, recipe, watcher)
        if checkpoint:
            checkpoint.save(good, {"stage": name, "progress": asdict(progress)})
    return progress


def _check_epoch(
    state: Mapping[str, npt.NDArray[Any]],
    monitor: Monitor,
    model: Any,
    began: float,
    guard: Guard | None,
    epoch: int,
) -> None:
    """Raise `DivergedError` if that is no state to go on from."""
    if not all(np.isfinite(value).all() for value in state.values()):
        raise DivergedError(f"the weights were no longer finite after epoch {epoch}")
    if guard is None:
        return
    drop, reached = guard.max_accuracy_drop, monitor.measure_guard_accuracy(model)
    lead = began - 1 / monitor.data.classes
    if reached < began - (np.clip(lead / 2, *COLLAPSE_DROP) if drop is None else drop):
        what = (
            f"training accuracy collapsed in epoch {epoch}"
            if drop is None
            else f"accuracy on the examples set aside fell by more than {drop:.1%} in epoch {epoch}"
        )
        raise DivergedError(f"{what}: {reached:.1%}, from {began:.1%}")


def _make_record(
    monitor: Monitor, model: Any, number: int, epoch: EpochResult, *, with_rho: bool
) -> EpochRecord:
    """The record of an epoch, with what it came to on held-out data."""
    means, (accuracy, rho_2) = epoch.means, monitor.measure_held_out(model, with_rho=with_rho)
    return EpochRecord(
        epoch=number,
        loss=means.total,
        cross_entropy=means.cross_entropy,
        penalty=means.penalty,
        unfinished=means.unfinished,
        accuracy=accuracy,
        rho_2=rho_2,
        gradient=means.gradient,
        seconds=epoch.seconds,
        iterations=means.iterations,
    )


def _announce_epoch(name: str, record: EpochRecord, recipe: Recipe, watcher: Watcher) -> None:
    if record.epoch % max(1, recipe.epochs // PROGRESS_LINES) and record.epoch < recipe.epochs:
        return
    robust = "" if record.rho_2 is None else f", rho_2 {record.rho_2:.4f}"
    watcher.say(
        f"{name} epoch {record.epoch}/{recipe.epochs}: loss {record.loss:.4f}, "
        f"held-out accuracy {record.accuracy:.2%}{robust}, {record.seconds:.1f} s"
    )
