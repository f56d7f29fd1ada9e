"""Statistics of the distances of n examples, with confidence intervals.

The distance of an example is the size of its smallest known perturbation: 0 if the network
misclassifies the example itself, inf if no attack fooled it ("censored": the true distance is
unknown but larger than what was tried). No distance is dropped.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
import numpy.typing as npt

from deepdefense.seam.frozen_dict import FrozenDict

__all__ = [
    "Comparison",
    "Curve",
    "Distance",
    "Interval",
    "Values",
    "bootstrap",
    "compare_distances",
    "finite_or_none",
    "is_correct",
    "is_robust",
    "percentile_99",
    "quantile",
    "robust_accuracy",
    "row_medians",
    "security_curve",
    "summarize_distances",
    "typical_distance",
    "wilson_interval",
]

Values = npt.NDArray[np.float64]
Interval = tuple[float | None, float | None]

PERCENTILES = (5, 10, 25, 50, 75, 90)
CURVE_POINTS = 49  # of the security curve, besides eps = 0
RESAMPLES = 1000  # of the bootstrap
CONFIDENCE = 0.95
ROUNDING = 1e-6  # relative: rounding may make a perturbation of size eps larger by this much


def finite_or_none(value: float) -> float | None:
    """Return the number, or None if it is not finite."""
    return float(value) if np.isfinite(value) else None


def quantile(values: Values, level: float) -> float:
    """Return the smallest value that a share `level` of the values does not exceed, maybe inf."""
    return float(np.quantile(values, level, method="inverted_cdf"))


def is_correct(logits: npt.NDArray[Any], y: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """Return whether logits [n k] predict the labels [n].

    A row that is not all finite is never correct; without that rule argmax takes NaN for a class.
    """
    correct: npt.NDArray[np.bool_] = np.isfinite(logits).all(1) & (logits.argmax(1) == y)
    return correct


def is_robust(distance: Values, eps: float) -> npt.NDArray[np.bool_]:
    """Return which examples no perturbation within eps fools: distance > eps, but for rounding."""
    robust: npt.NDArray[np.bool_] = distance > eps * (1 + ROUNDING)
    return robust


def robust_accuracy(distance: Values, eps: float) -> float:
    """Return the share of examples that are robust within eps."""
    return float(np.mean(is_robust(distance, eps)))


@dataclass(frozen=True)
class Distance:
    """Median and quantiles of the distances of n examples.

    `wrong` counts the examples at distance 0, and `censored` those that no attack fooled. A
    quantile that falls among the censored is None. The keys of `quantiles` are percentiles.
    """

    median: float | None
    quantiles: FrozenDict[float | None]
    censored: int
    wrong: int


def summarize_distances(distance: Values) -> Distance:
    """Return the median and the quantiles of distances [n].

    >>> summarize_distances(np.array([0.0, 1.0, 2.0, np.inf])).median
    1.0
    """
    return Distance(
        median=finite_or_none(quantile(distance, 0.5)),
        quantiles=FrozenDict(
            {str(i): finite_or_none(quantile(distance, i / 100)) for i in PERCENTILES}
        ),
        censored=int(np.isinf(distance).sum()),
        wrong=int((distance == 0).sum()),
    )


def bootstrap(statistic: Callable[[Values], Values], *columns: Values, seed: int = 0) -> Interval:
    """Return the 95 % bootstrap interval of a statistic of n examples.

    `columns` hold one value per example, [n] each. `statistic` maps m resamples [m n c] to [m].
    Examples are sorted before resampling, so their order does not affect the result.

    >>> low, high = bootstrap(lambda v: v[..., 0].mean(1), np.arange(100.0))
    >>> round(low), round(high)
    (44, 55)

    Source: Efron (1979), "Bootstrap methods: another look at the jackknife"; percentile intervals.
    """
    table = np.stack(columns, -1)
    table = table[np.lexsort(table.T)]
    random = np.random.default_rng((seed, 17))
    n = len(table)
    chunk = max(1, 4_000_000 // n)  # resamples at a time, which bounds the memory
    samples = [
        statistic(table[random.integers(0, n, (min(chunk, RESAMPLES - done), n))])
        for done in range(0, RESAMPLES, chunk)
    ]
    tail, ordered = (1 - CONFIDENCE) / 2, np.sort(np.concatenate(samples))
    last = int(np.ceil((1 - tail) * len(ordered))) - 1
    return finite_or_none(ordered[int(tail * len(ordered))]), finite_or_none(ordered[last])


def wilson_interval(share: float, n: int) -> tuple[float, float]:
    """Return the 95 % interval of a probability, given the share s of n examples.

        (s + z^2 / 2n +- z sqrt(s (1 - s) / n + z^2 / 4n^2)) / (1 + z^2 / n)

    The interval has a width even if all examples agree, because n examples leave an accuracy
    uncertain.

    >>> low, high = wilson_interval(1.0, 100)
    >>> round(low, 3), round(high, 3)
    (0.963, 1.0)

    Source: Wilson (1927), "Probable inference, the law of succession, and statistical inference".
    """
    z = NormalDist().inv_cdf((1 + CONFIDENCE) / 2)
    centre = share + z**2 / (2 * n)
    half = z * math.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    low, high = ((centre + side) / (1 + z**2 / n) for side in (-half, half))
    return max(0.0, low), min(1.0, high)


def row_medians(values: Values) -> Values:
    """Return the medians [m] of the rows [m n], by the rule of `quantile`."""
    place = (values.shape[1] - 1) // 2
    medians: Values = np.partition(values, place, axis=1)[:, place]
    return medians


@dataclass(frozen=True)
class Curve:
    """Accuracy under attack as a function of eps, with a 95 % band."""

    eps: tuple[float, ...]
    robust_accuracy: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]


def typical_distance(distance: Values) -> float:
    """Return the median distance of the correctly classified examples.

    If more than half of them are censored, return the median of the others. If no example was
    fooled, return 0.
    """
    correct = distance[distance > 0]
    fooled = correct[np.isfinite(correct)]
    if not len(fooled):
        return 0.0
    median = quantile(correct, 0.5)
    return median if np.isfinite(median) else quantile(fooled, 0.5)


def percentile_99(distance: Values) -> float:
    """Return the 99th percentile of the finite distances, or 0 if there are none."""
    finite = distance[np.isfinite(distance)]
    return float(np.quantile(finite, 0.99)) if len(finite) else 0.0


def security_curve(distance: Values, top: float | None = None) -> Curve:
    """Return accuracy under attack from eps = 0 to 5 % beyond `top`, by default `percentile_99`."""
    top = top or percentile_99(distance)
    if not top > 0:
        return Curve((), (), (), ())
    eps = np.linspace(0, 1.05 * top, CURVE_POINTS + 1)
    shares = [robust_accuracy(distance, e) for e in eps]
    bands = [wilson_interval(share, len(distance)) for share in shares]
    return Curve(
        tuple(map(float, eps)),
        tuple(shares),
        tuple(low for low, _ in bands),
        tuple(high for _, high in bands),
    )


@dataclass(frozen=True)
class Comparison:
    """The distances of one network compared with those of another on the same examples.

    `median_ratio` is the ratio of the medians, with its `interval`. `better` is the share of
    examples whose distance grew. `accuracy_change` is the difference of the accuracies, with its
    `accuracy_interval`.
    """

    median_ratio: float | None
    interval: Interval
    better: float
    accuracy_change: float
    accuracy_interval: Interval


def compare_distances(before: Values, after: Values, seed: int = 0) -> Comparison:
    """Compare the distances [n] of two networks on the same examples.

    Each resample of the bootstrap takes the same examples for both networks.
    """

    def ratio(table: Values) -> Values:
        after, before = row_medians(table[..., 1]), row_medians(table[..., 0])
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(np.isfinite(before), after / before, np.nan)

    return Comparison(
        median_ratio=finite_or_none(ratio(np.stack([before, after], -1)[None])[0]),
        interval=bootstrap(ratio, before, after, seed=seed),
        better=float(np.mean(after > before)),
        accuracy_change=float(np.mean(after > 0) - np.mean(before > 0)),
        accuracy_interval=bootstrap(
            lambda v: (v[..., 1] > 0).mean(1) - (v[..., 0] > 0).mean(1), before, after, seed=seed
        ),
    )
