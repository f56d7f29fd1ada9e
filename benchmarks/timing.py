"""Timing on a noisy machine: all calls take turns in one process, and ratios are medians."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

__all__ = ["Timing", "time_alternately"]


class Timing(NamedTuple):
    """Median seconds of one call, and the median over the rounds of its ratio to the base call."""

    seconds: float
    ratio: float


def time_alternately(
    calls: Mapping[str, Callable[[], object]], *, base: str, rounds: int = 11, warmup: int = 2
) -> dict[str, Timing]:
    """Time every call once per round, after `warmup` rounds that are not counted.

    The calls alternate, so a change in the machine's speed affects all of them alike.
    """
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for number in range(warmup + rounds):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            if number >= warmup:
                seconds[name].append(time.perf_counter() - start)
    return {
        name: Timing(
            statistics.median(times),
            statistics.median(t / b for t, b in zip(times, seconds[base], strict=True)),
        )
        for name, times in seconds.items()
    }
