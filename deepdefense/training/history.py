"""Record the periods of a training run, and decide after each one whether training continues."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

__all__ = ["EpochRecord", "Progress"]


@dataclass(frozen=True)
class EpochRecord:
    """The measurements of one accepted period, as listed in the history of a report.

    A period is an epoch or, with `Recipe.optimizer_steps`, a tenth of training. `epoch` is its
    number, counted from 1, and `steps` the number of optimizer steps from the start of training to
    its end. `loss`, `cross_entropy`, `penalty`, `unfinished`, `gradient` and `iterations` are means
    over the steps of the period. `accuracy` and `rho_2` are measured after it: `accuracy` on
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
    steps: int = 0  # 0 in reports of earlier versions, which do not record it


@dataclass(frozen=True)
class Progress:
    """The state of a training run between two attempts at a period, except the weights.

    - `period_name`: the word for a period in messages, "epoch" or "period".
    - `history`: the records of the accepted periods.
    - `stopped`: the reason, if a rejected period ended training early; None otherwise.
    - `notes`: one line for each other event, such as a period that is tried again.
    - `halvings`: how often the learning rate has been halved since the start of the run.
    - `rejections`: how often the current period has been rejected.
    - `guard_rho`: the mean rho_2 of the examples set aside, after each accepted period. It is empty
      if the guard has no `patience`.
    - `has_plateaued`: whether training ended because `guard_rho` no longer grew.
    """

    period_name: str = "epoch"
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

    @property
    def steps(self) -> int:
        """The number of optimizer steps in the accepted periods."""
        return self.history[-1].steps if self.history else 0

    def is_finished(self, periods: int) -> bool:
        """Return whether training is over.

        It is over after `periods` accepted periods, or once `stopped` or `has_plateaued` is set.
        """
        return len(self.history) >= periods or bool(self.stopped) or self.has_plateaued

    def reject_epoch(self, why: str, retries: int) -> Progress:
        """Return the progress after a period was rejected for the reason `why`.

        `run_training` then repeats the period at half the learning rate. If it has already
        repeated the period `retries` times, training ends.
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
        kept = (
            f"the weights of {self.period_name} {done} are kept" if done else "nothing was changed"
        )
        advice = "Try a lower learning rate, lam or c."
        return replace(self, stopped=f"{why}; {kept}. {advice}")

    def accept_epoch(self, record: EpochRecord) -> Progress:
        """Return the progress with the record of an accepted period appended."""
        return replace(self, history=(*self.history, record), rejections=0)

    def watch_plateau(self, rho: float, patience: int) -> Progress:
        """Return the progress with `rho` appended to `guard_rho`.

        `rho` is the mean rho_2 of the examples set aside. If the largest value in `guard_rho` is
        `patience` or more periods old, `has_plateaued` is set, which ends training.
        """
        guard_rho = (*self.guard_rho, rho)
        since_best = len(guard_rho) - 1 - int(np.argmax(guard_rho))
        if since_best < patience:
            return replace(self, guard_rho=guard_rho)
        note = (
            f"ended after {self.period_name} {len(self.history)}: "
            "rho_2 on the examples set aside no longer grew"
        )
        return replace(self, guard_rho=guard_rho, notes=(*self.notes, note), has_plateaued=True)
