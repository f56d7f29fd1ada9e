"""What per-example distances say of a network, and how sure that is.

A distance is 0 where the network is wrong of itself, and inf where no attack fooled it: that one is
only known to be larger than all that was tried. No distance is dropped.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
import numpy.typing as npt

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

PERCENTILES = (5, 10, 25, 50, 75, 90)  # percentiles
CURVE_POINTS = 49  # of the security curve, besides 0
RESAMPLES = 1000  # of the bootstrap
CONFIDENCE = 0.95  # of intervals
ROUNDING = 1e-6  # relative: a perturbation of length eps may be longer by a rounding


def finite_or_none(value: float) -> float | None:
    """A number, or None where it is not finite."""
    return float(value) if np.isfinite(value) else None


def quantile(values: Values, level: float) -> float:
    """The smallest value that a share of the examples does not exceed; inf is one of them."""
    return float(np.quantile(values, level, method="inverted_cdf"))


def is_correct(logits: npt.NDArray[Any], y: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """Where logits [n k] say the label [n]; never where one is not finite, or NaN were class 0."""
    told: npt.NDArray[np.bool_] = np.isfinite(logits).all(1) & (logits.argmax(1) == y)
    return told


def is_robust(distance: Values, eps: float) -> npt.NDArray[np.bool_]:
    """Which examples stand within eps: they are right, and not fooled that near."""
    held: npt.NDArray[np.bool_] = distance > eps * (1 + ROUNDING)
    return held


def robust_accuracy(distance: Values, eps: float) -> float:
    """The share of examples that stand within eps."""
    return float(np.mean(is_robust(distance, eps)))


@dataclass(frozen=True)
class Distance:
    """The distances of n examples: those `wrong` count as 0, those `censored` as beyond all."""

    median: float | None
    quantiles: tuple[tuple[str, float | None], ...]
    censored: int
    wrong: int


def summarize_distances(distance: Values) -> Distance:
    """Median and quantiles; None where so many are censored that it is not known.

    >>> distances(np.array([0.0, 1.0, 2.0, np.inf])).median
    1.0
    """
    return Distance(
        median=finite_or_none(quantile(distance, 0.5)),
        quantiles=tuple((str(i), finite_or_none(quantile(distance, i / 100))) for i in PERCENTILES),
        censored=int(np.isinf(distance).sum()),
        wrong=int((distance == 0).sum()),
    )


def bootstrap(statistic: Callable[[Values], Values], *columns: Values, seed: int = 0) -> Interval:
    """The central 95 % of a statistic over samples drawn anew from the examples.

    `statistic` maps resampled columns [m n c] to [m]. Examples are sorted first, so that the result
    does not depend on their order.

    >>> low, high = bootstrap(lambda v: v[..., 0].mean(1), np.arange(100.0))
    >>> round(low), round(high)
    (44, 55)

    Source: Efron (1979), "Bootstrap methods: another look at the jackknife"; percentile intervals.
    """
    table = np.stack(columns, -1)
    table = table[np.lexsort(table.T)]
    random = np.random.default_rng((seed, 17))
    n = len(table)
    step = max(1, 4_000_000 // n)
    found = [
        statistic(table[random.integers(0, n, (min(step, RESAMPLES - done), n))])
        for done in range(0, RESAMPLES, step)
    ]
    tail, ordered = (1 - CONFIDENCE) / 2, np.sort(np.concatenate(found))
    last = int(np.ceil((1 - tail) * len(ordered))) - 1
    return finite_or_none(ordered[int(tail * len(ordered))]), finite_or_none(ordered[last])


def wilson_interval(share: float, n: int) -> tuple[float, float]:
    """The 95 % interval of a probability of which n examples have shown a share s.

        (s + z^2 / 2n +- z sqrt(s (1 - s) / n + z^2 / 4n^2)) / (1 + z^2 / n)

    So it has a width even where all examples agree, as no sample makes an accuracy certain.

    >>> low, high = share_interval(1.0, 100)
    >>> round(low, 3), round(high, 3)
    (0.963, 1.0)

    Source: Wilson (1927), "Probable inference, the law of succession, and statistical inference".
    """
    z = NormalDist().inv_cdf((1 + CONFIDENCE) / 2)
    middle = share + z**2 / (2 * n)
    half = z * math.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    low, high = ((middle + side) / (1 + z**2 / n) for side in (-half, half))
    return max(0.0, low), min(1.0, high)


def row_medians(values: Values) -> Values:
    """The medians [m] of the rows [m n], by `quantile`'s rule."""
    place = (values.shape[1] - 1) // 2
    medians: Values = np.partition(values, place, axis=1)[:, place]
    return medians


@dataclass(frozen=True)
class Curve:
    """Accuracy under attack over eps, with a 95 % band."""

    eps: tuple[float, ...]
    robust_accuracy: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]


def typical_distance(distance: Values) -> float:
    """The median distance of the examples that are right; of those fooled, if it is not known.

    0 where there is none of either.
    """
    right = distance[distance > 0]
    fooled = right[np.isfinite(right)]
    if not len(fooled):
        return 0.0
    middle = quantile(right, 0.5)
    return middle if np.isfinite(middle) else quantile(fooled, 0.5)


def percentile_99(distance: Values) -> float:
    """What a distance is but for the last hundredth of those that are known; 0 for none."""
    finite = distance[np.isfinite(distance)]
    return float(np.quantile(finite, 0.99)) if len(finite) else 0.0


def security_curve(distance: Values, top: float | None = None) -> Curve:
    """From eps = 0 to `top`, or where all that can be fooled are fooled."""
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
    """One network against another on the same examples."""

    median_ratio: float | None
    interval: Interval
    better: float
    accuracy_change: float
    accuracy_interval: Interval


def compare_distances(before: Values, after: Values, seed: int = 0) -> Comparison:
    """The ratio of the median distances, the share that grew, the change of accuracy.

    Intervals are of paired samples: both networks are drawn on the same examples.
    """

    def ratio(table: Values) -> Values:
        after, before = row_medians(table[..., 1]), row_medians(table[..., 0])
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(np.isfinite(before), after / before, np.nan)

    whole = np.stack([before, after], -1)[None]
    return Comparison(
        median_ratio=finite_or_none(ratio(whole)[0]),
        interval=bootstrap(ratio, before, after, seed=seed),
        better=float(np.mean(after > before)),
        accuracy_change=float(np.mean(after > 0) - np.mean(before > 0)),
        accuracy_interval=bootstrap(
            lambda v: (v[..., 1] > 0).mean(1) - (v[..., 0] > 0).mean(1), before, after, seed=seed
        ),
    )
