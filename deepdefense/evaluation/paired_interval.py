"""The confidence interval of the change of a share, from two measurements of n examples."""

from __future__ import annotations

import math

from deepdefense.evaluation.statistics import wilson_interval

__all__ = ["paired_interval"]


def paired_interval(*, both: int, gained: int, lost: int, n: int) -> tuple[float, float]:
    """Return the 95 % interval of the change of a share, for two measurements of n examples.

    `both` examples count in both measurements, `gained` only in the second, and `lost` only in the
    first. The interval combines Wilson's intervals of the two shares, with their correlation phi.
    It has a positive width even if both shares are 0 or 1.

    >>> low, high = paired_interval(both=98, gained=0, lost=2, n=100)
    >>> round(low, 3), round(high, 3)
    (-0.07, 0.02)

    Source: Newcombe (1998), "Improved confidence intervals for the difference between binomial
    proportions based on paired data", method 10.
    """
    first, second = (both + lost) / n, (both + gained) / n
    neither = n - both - gained - lost
    product = float(both * neither - gained * lost)
    product = max(product - n / 2, 0.0) if product > 0 else product  # continuity correction
    margins = (both + lost) * (gained + neither) * (both + gained) * (lost + neither)
    phi = product / math.sqrt(margins) if margins else 0.0
    (low_1, high_1), (low_2, high_2) = wilson_interval(first, n), wilson_interval(second, n)

    def combine(a: float, b: float) -> float:
        return math.sqrt(max(a * a - 2 * phi * a * b + b * b, 0.0))

    change = second - first
    return (
        change - combine(second - low_2, high_1 - first),
        change + combine(high_2 - second, first - low_1),
    )
