"""The verdict on a hardening run: the changes of distance and accuracy, with intervals."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from deepdefense.evaluation.paired_interval import paired_interval
from deepdefense.evaluation.statistics import (
    Interval,
    Values,
    compare_distances,
    finite_or_none,
    quantile,
)

__all__ = ["HardeningVerdict"]

LEAST_EXAMPLES = 20  # with fewer examples, the bootstrap interval of a median says too little

Change = Literal["more", "less", "unclear", "unmeasured"]


@dataclass(frozen=True)
class HardeningVerdict:
    """The change of distance and accuracy on held-out examples, with 95 % intervals.

    `str` of a verdict is two lines of text: on the distance and on the accuracy.

    - `n`: the number of examples whose distance to the decision boundary was measured.
    - `p`: the order of the norm that measures distances.
    - `bounded`: whether perturbed examples had to stay within bounds, such as the pixel range.
    - `attacks`: the names of the attacks. The distance is that of the nearest point they find.
    - `median_before`, `median_after`: the median distances, or None if infinite. Examples that the
      network misclassifies have the distance 0.
    - `growth`: `median_after` / `median_before`, or None if there is no such finite number.
    - `growth_interval`: the interval of `growth`, by the bootstrap on pairs of distances. An end is
      None if it is not finite; both are None below `LEAST_EXAMPLES` examples.
    - `accuracy_n`: the number of examples on which the accuracies were measured.
    - `accuracy_before`, `accuracy_after`: the accuracies.
    - `accuracy_interval`: the interval of `accuracy_after` - `accuracy_before` (`paired_interval`).
    """

    n: int
    p: float
    bounded: bool
    attacks: tuple[str, ...]
    median_before: float | None
    median_after: float | None
    growth: float | None
    growth_interval: Interval
    accuracy_n: int
    accuracy_before: float
    accuracy_after: float
    accuracy_interval: tuple[float, float]

    @classmethod
    def compare(
        cls,
        before: Values,
        after: Values,
        correct_before: npt.NDArray[np.bool_],
        correct_after: npt.NDArray[np.bool_],
        *,
        p: float,
        attacks: tuple[str, ...],
        bounded: bool = False,
        seed: int = 0,
    ) -> HardeningVerdict:
        """Return the verdict on two networks, "before" and "after" hardening.

        Args:
            before: the distances [n] of the network before hardening: 0 for misclassified examples,
                and inf where no attack succeeded.
            after: the distances [n] of the hardened network, for the same examples.
            correct_before: a mask [m] of the examples that the network classifies correctly before
                hardening. These can be more examples than those with a distance.
            correct_after: the mask [m] of the hardened network, for the same examples.
            p: the order of the norm that measures distances.
            attacks: the names of the attacks that measured the distances.
            bounded: whether perturbed examples had to stay within bounds.
            seed: the seed of the bootstrap's resamples.
        """
        n, m = len(before), len(correct_before)
        comparison = compare_distances(before, after, seed)
        gained = int((~correct_before & correct_after).sum())
        lost = int((correct_before & ~correct_after).sum())
        both = int((correct_before & correct_after).sum())
        return cls(
            n=n,
            p=float(p),
            bounded=bounded,
            attacks=tuple(attacks),
            median_before=finite_or_none(quantile(before, 0.5)),
            median_after=finite_or_none(quantile(after, 0.5)),
            growth=comparison.median_ratio,
            growth_interval=comparison.interval if n >= LEAST_EXAMPLES else (None, None),
            accuracy_n=m,
            accuracy_before=float(correct_before.mean()),
            accuracy_after=float(correct_after.mean()),
            accuracy_interval=paired_interval(both=both, gained=gained, lost=lost, n=m),
        )

    @property
    def distance_change(self) -> Change:
        """Whether the interval of `growth` lies above 1 ("more"), below ("less") or contains it."""
        low, high = self.growth_interval
        if self.growth is None or low is None:
            return "unmeasured"
        if low > 1:
            return "more"
        return "less" if high is not None and high < 1 else "unclear"

    @property
    def accuracy_change(self) -> Change:
        """Whether the interval of the change lies above 0 ("more"), below ("less") or contains it.

        It is never "unmeasured".
        """
        low, high = self.accuracy_interval
        return "more" if low > 0 else "less" if high < 0 else "unclear"

    @property
    def distance_headline(self) -> str:
        """The change of distance in a few words, such as "17 % to 31 % further from ..."."""
        if self.distance_change == "unclear":
            return "no clear change of distance to the decision boundary"
        if self.distance_change == "unmeasured":
            return f"no verdict on the distance: {self._explain_missing_growth()}"
        side = "further from" if self.distance_change == "more" else "nearer to"
        low, high = self.growth_interval
        if high is None or high >= 2:
            return f"{_join(low, high, 1, '')} times as far from the decision boundary"
        ends = sorted(100 * abs(end - 1) for end in (low, high) if end is not None)
        return f"{_join(ends[0], ends[1], 0, ' %')} {side} the decision boundary"

    @property
    def accuracy_headline(self) -> str:
        """The change of accuracy in a few words, such as "less accurate by 3 to 6 points"."""
        if self.accuracy_change == "unclear":
            return "no clear change of accuracy"
        low, high = sorted(100 * abs(end) for end in self.accuracy_interval)
        return f"{self.accuracy_change} accurate by {_join(low, high, 0, '')} points"

    @property
    def distance_figures(self) -> str:
        """The median distances, and how they were measured."""
        ends = [_format_median(value) for value in (self.median_before, self.median_after)]
        where = " within bounds" if self.bounded else ""
        return (
            f"median l{self.p:g} distance{where} {' -> '.join(ends)} "
            f"by {' and '.join(self.attacks)}, "
            f"{self.n:,} held-out examples"
        )

    @property
    def accuracy_figures(self) -> str:
        """The accuracies, and the number of examples on which they were measured."""
        decimals = 2 if self.accuracy_n >= 2000 else 1
        ends = [
            f"{100 * value:.{decimals}f} %" for value in (self.accuracy_before, self.accuracy_after)
        ]
        return f"{' -> '.join(ends)}, {self.accuracy_n:,} held-out examples"

    def __str__(self) -> str:
        """Return a line on the distance and a line on the accuracy."""
        return (
            f"{self.distance_headline} ({self.distance_figures})\n"
            f"{self.accuracy_headline} ({self.accuracy_figures})"
        )

    def as_dict(self) -> dict[str, Any]:
        """Return the fields and the text as a dictionary for report.json."""
        return {"text": str(self), **asdict(self)}

    def _explain_missing_growth(self) -> str:
        """Return why the growth, or its interval, is missing."""
        for value, when in ((self.median_before, "given"), (self.median_after, "hardened")):
            if value is None:
                return f"the attacks reach less than half of the examples of the {when} network"
        if not self.median_before:
            return "the given network is wrong on at least half of the examples"
        if self.n < LEAST_EXAMPLES:
            return f"{self.n} examples are too few"
        return "the attacks reach too few of the examples"


def _format_median(value: float | None) -> str:
    return "beyond the attacks" if value is None else f"{value:.3g}"


def _join(low: float | None, high: float | None, decimals: int, unit: str) -> str:
    """Return an interval as text, such as "17 % to 31 %", "3 to 6" or "at least 2.1".

    An end is written with one more decimal if it would otherwise be rounded to 0.
    """
    words = [
        f"{end:.{decimals if round(end, decimals) else decimals + 1}f}{unit}"
        for end in (low, high)
        if end is not None
    ]
    if high is None:
        return f"at least {words[0]}"
    return f"about {words[0]}" if words[0] == words[1] else " to ".join(words)
