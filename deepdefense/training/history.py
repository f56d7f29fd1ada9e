"""Record the epochs of a training run, and decide after each one whether training continues."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

__all__ = ["EpochRecord", "Progress"]


@dataclass(frozen=True)
class EpochRecord:
    """The measurements of one accepted epoch, as listed in the history of a report.

    `loss`, `cross_entropy`, `penalty`, `unfinished`, `gradient` and `iterations` are means over the
    optimizer steps of the epoch. `accuracy` and `rho_2` are measured after the epoch: `accuracy` on
    all held-out examples, and the mean `rho_2` on a fixed sample of them (None: not measured). For
    DeepFool's perturbation D of an example x, rho_2 = ||D||_2 / ||x||_2.
    """

    epoch: int
    loss: float
    cross_entropy: float
    penalty: float
    unfinished: float  # share of examples for which DeepFool did not reach the boundary
    accuracy: float
    rho_2: float | None
    gradient: float  # 2-norm of a step's gradient, before clipping
    seconds: float
    iterations: float  # number of DeepFool iterations per example


@dataclass(frozen=True)
class Progress:
    """The state of a training run between two attempts at an epoch, except the weights.

    - `history`: the records of the accepted epochs.
    - `stopped`: the reason, if a rejected epoch ended training early; None otherwise.
    - `notes`: one line for each other event, such as an epoch that is tried again.
    - `halvings`: how often the learning rate has been halved since the start of the run.
    - `rejections`: how often the current epoch has been rejected.
    - `guard_rho`: the mean rho_2 of the examples set aside, after each accepted epoch. It is empty
      if the guard has no `patience`.
    - `has_plateaued`: whether training ended because `guard_rho` no longer grew.
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
        """Rebuild the progress from `saved`, the result of `asdict` read back from JSON."""
        values: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in saved.items()
        }
        values["history"] = tuple(EpochRecord(**record) for record in saved["history"])
        return cls(**values)

    def is_finished(self, epochs: int) -> bool:
        """Return whether training is over.

        It is over after `epochs` accepted epochs, or once `stopped` or `has_plateaued` is set.
        """
        return len(self.history) >= epochs or bool(self.stopped) or self.has_plateaued

    def reject_epoch(self, why: str, retries: int) -> Progress:
        """Return the progress after an epoch was rejected for the reason `why`.

        `run_training` then repeats the epoch at half the learning rate. If it has already
        repeated the epoch `retries` times, training ends.
        """
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
        """Return the progress with the record of an accepted epoch appended."""
        return replace(self, history=(*self.history, record), rejections=0)

    def watch_plateau(self, rho: float, patience: int) -> Progress:
        """Return the progress with `rho` appended to `guard_rho`.

        `rho` is the mean rho_2 of the examples set aside. If the largest value in `guard_rho` is
        `patience` or more epochs old, `has_plateaued` is set, which ends training.
        """
        guard_rho = (*self.guard_rho, rho)
        since_best = len(guard_rho) - 1 - int(np.argmax(guard_rho))
        if since_best < patience:
            return replace(self, guard_rho=guard_rho)
        note = (
            f"ended after epoch {len(self.history)}: rho_2 on the examples set aside no longer grew"
        )
        return replace(self, guard_rho=guard_rho, notes=(*self.notes, note), has_plateaued=True)
