"""Time several calls relative to each other, on a machine whose speed varies."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

__all__ = ["Timing", "time_alternately"]


class Timing(NamedTuple):
    """The time of a call: the median seconds, and the median ratio to the base call's time.

    Both are medians over the rounds of `time_alternately`.
    """

    seconds: float
    ratio: float


def time_alternately(
    calls: Mapping[str, Callable[[], object]], *, base: str, rounds: int = 11, warmup: int = 2
) -> dict[str, Timing]:
    """Time every call once in each round, after `warmup` rounds whose times are discarded.

    `base` is the name of the call to which the ratios refer. The calls alternate, so a change in
    the machine's speed affects all of them in the same way.
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
