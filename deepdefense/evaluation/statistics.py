"""Statistics of the distances of n examples, with confidence intervals.

The distance of an example is the size of the smallest perturbation that an attack found for it. It
is 0 if the network misclassifies the unperturbed example, and inf if every attack failed. Examples
with distance inf are called censored.
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
CURVE_POINTS = 49  # the number of positive eps at which the security curve is computed
RESAMPLES = 1000  # the number of resamples of the bootstrap
CONFIDENCE = 0.95  # the level of all confidence intervals
ROUNDING = 1e-6  # rounding may make a perturbation larger than eps by this fraction of eps


def finite_or_none(value: float) -> float | None:
    """Return the value as a Python float, or None if it is NaN or infinite."""
    return float(value) if np.isfinite(value) else None


def quantile(values: Values, level: float) -> float:
    """Return the quantile of the values [n] at `level` in 0..1, without interpolation.

    It is the smallest v in the array such that at least the fraction `level` of the values are less
    than or equal to v. It may be inf.
    """
    return float(np.quantile(values, level, method="inverted_cdf"))


def is_correct(logits: npt.NDArray[Any], y: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """Return a mask [n] of the examples whose logits [n k] predict the label in y [n].

    An example with a NaN or infinite logit is never correct.
    """
    correct: npt.NDArray[np.bool_] = np.isfinite(logits).all(1) & (logits.argmax(1) == y)
    return correct


def is_robust(distance: Values, eps: float) -> npt.NDArray[np.bool_]:
    """Return a mask [n] of the examples whose distance [n] is larger than eps.

    A distance that exceeds eps only by rounding does not count as larger.
    """
    robust: npt.NDArray[np.bool_] = distance > eps * (1 + ROUNDING)
    return robust


def robust_accuracy(distance: Values, eps: float) -> float:
    """Return accuracy under attack: the share of examples whose distance is larger than eps."""
    return float(np.mean(is_robust(distance, eps)))


@dataclass(frozen=True)
class Distance:
    """The median and further quantiles of the distances of n examples.

    Attributes:
        median: the median distance, or None if it is infinite.
        quantiles: a mapping from percentiles, such as "25", to distances; None if infinite.
        censored: the number of examples on which every attack failed.
        wrong: the number of examples that are misclassified without a perturbation.
    """

    median: float | None
    quantiles: FrozenDict[float | None]
    censored: int
    wrong: int


def summarize_distances(distance: Values) -> Distance:
    """Return the median and the quantiles of the distances [n] as a `Distance`.

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
    """Return the 95 % confidence interval of a statistic of n examples, by the bootstrap.

    The order of the examples does not affect the interval. An end of it is None if it is NaN or
    infinite.

    Args:
        statistic: m resamples of the columns [m n c] -> the value of the statistic for each, [m].
        columns: c arrays [n], each with one value per example.
        seed: the seed of the resamples.

    >>> low, high = bootstrap(lambda v: v[..., 0].mean(1), np.arange(100.0))
    >>> round(low), round(high)
    (44, 55)

    Source: Efron (1979), "Bootstrap methods: another look at the jackknife"; percentile intervals.
    """
    table = np.stack(columns, -1)
    table = table[np.lexsort(table.T)]
    random = np.random.default_rng((seed, 17))
    n = len(table)
    chunk = max(1, 4_000_000 // n)  # draw this many resamples at once, to limit the memory used
    samples = [
        statistic(table[random.integers(0, n, (min(chunk, RESAMPLES - done), n))])
        for done in range(0, RESAMPLES, chunk)
    ]
    tail, ordered = (1 - CONFIDENCE) / 2, np.sort(np.concatenate(samples))
    last = int(np.ceil((1 - tail) * len(ordered))) - 1
    return finite_or_none(ordered[int(tail * len(ordered))]), finite_or_none(ordered[last])


def wilson_interval(share: float, n: int) -> tuple[float, float]:
    """Return the 95 % confidence interval of a probability, by Wilson's formula.

        (s + z^2 / (2 n) +- z sqrt(s (1 - s) / n + z^2 / (4 n^2))) / (1 + z^2 / n)

    s is the observed share of n examples, and z = 1.96 is the 97.5th percentile of the standard
    normal distribution. The interval has a positive width even for s = 0 and s = 1.

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
    """Return the median of each row, [m n] -> [m], without interpolation, as `quantile` does."""
    middle = (values.shape[1] - 1) // 2
    medians: Values = np.partition(values, middle, axis=1)[:, middle]
    return medians


@dataclass(frozen=True)
class Curve:
    """The security curve: accuracy under attack as a function of eps.

    `low` and `high` are the ends of the 95 % confidence interval of the accuracy at each eps.
    """

    eps: tuple[float, ...]
    robust_accuracy: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]


def typical_distance(distance: Values) -> float:
    """Return a finite number that is typical of the distances of correctly classified examples.

    It is the median of these distances. If that is infinite, it is the median of the finite ones,
    or 0 if there are none.
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
    """Return the accuracy under attack for eps from 0 to 1.05 * `top`.

    `top` is by default the 99th percentile of the finite distances. If that percentile is 0, the
    curve is empty.
    """
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
    """A comparison of the distances of two networks, "before" and "after", on the same examples.

    Attributes:
        median_ratio: the median distance of "after", divided by that of "before".
        interval: the 95 % confidence interval of `median_ratio`.
        better: the share of examples whose distance is larger for "after".
        accuracy_change: the accuracy of "after" minus that of "before".
        accuracy_interval: the 95 % confidence interval of `accuracy_change`.
    """

    median_ratio: float | None
    interval: Interval
    better: float
    accuracy_change: float
    accuracy_interval: Interval


def compare_distances(before: Values, after: Values, seed: int = 0) -> Comparison:
    """Compare the distances `before` [n] and `after` [n] of two networks on the same examples.

    Each bootstrap resample, drawn with `seed`, contains the same examples for both networks.
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
