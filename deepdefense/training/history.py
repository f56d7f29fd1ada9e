"""The history of a training: a record of each epoch, and the decision how training continues."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

__all__ = ["EpochRecord", "Progress"]


@dataclass(frozen=True)
class EpochRecord:
    """One complete epoch: means over its steps, and figures of the network after it.

    `accuracy` is that of all held-out examples, `rho_2` the mean of a sample of them.
    """

    epoch: int
    loss: float
    cross_entropy: float
    penalty: float
    unfinished: float  # the share of examples whose search ended before the boundary
    accuracy: float
    rho_2: float | None
    gradient: float  # the mean 2-norm of a step's gradient, before clipping
    seconds: float
    iterations: float  # the mean number of steps of the searches


@dataclass(frozen=True)
class Progress:
    """The complete epochs of a training, and what decides how it continues.

    `stopped` says why training ended early with an epoch rejected; None if it did not. `notes` are
    the other events. The learning rate is halved `halvings` times, `rejections` of them for the
    current epoch. `guard_rho` is the mean rho_2 of the examples set aside, by epoch.
    """

    history: tuple[EpochRecord, ...] = ()
    stopped: str | None = None
    notes: tuple[str, ...] = ()
    halvings: int = 0
    rejections: int = 0
    guard_rho: tuple[float, ...] = ()
    has_plateaued: bool = False

    @classmethod
    def from_saved(cls, saved: Mapping[str, Any]) -> Progress:
        """Return the progress that was saved as JSON of `asdict`."""
        values: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in saved.items()
        }
        values["history"] = tuple(EpochRecord(**record) for record in saved["history"])
        return cls(**values)

    def is_finished(self, epochs: int) -> bool:
        """Return whether no epoch remains to be trained."""
        return len(self.history) >= epochs or bool(self.stopped) or self.has_plateaued

    def reject_epoch(self, why: str, retries: int) -> Progress:
        """Halve the learning rate for another attempt, or stop after `retries` of them."""
        if self.rejections < retries:
            halvings = self.halvings + 1
            note = f"{why}: taken back, and tried again at {0.5**halvings:g} of the learning rate"
            return replace(
                self,
                notes=(*self.notes, note),
                halvings=halvings,
                rejections=self.rejections + 1,
            )
        done = len(self.history)
        kept = f"the weights of epoch {done} are kept" if done else "nothing was changed"
        advice = "Try a lower learning rate, lam or c."
        return replace(self, stopped=f"{why}; {kept}. {advice}")

    def accept_epoch(self, record: EpochRecord) -> Progress:
        """Append the record of an epoch."""
        return replace(self, history=(*self.history, record), rejections=0)

    def watch_plateau(self, rho: float, patience: int) -> Progress:
        """Append the rho_2 of the examples set aside; end if it has not grown for `patience`."""
        guard_rho = (*self.guard_rho, rho)
        since_best = len(guard_rho) - 1 - int(np.argmax(guard_rho))
        if since_best < patience:
            return replace(self, guard_rho=guard_rho)
        note = (
            f"ended after epoch {len(self.history)}: rho_2 on the examples set aside no longer grew"
        )
        return replace(self, guard_rho=guard_rho, notes=(*self.notes, note), has_plateaued=True)
