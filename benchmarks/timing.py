"""Times that a noisy machine cannot turn: everything in turn, in one process, medians of ratios."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

__all__ = ["Timing", "alternated"]


class Timing(NamedTuple):
    """Median seconds of one call, and the median over the rounds of its ratio to the base."""

    seconds: float
    ratio: float


def alternated(
    calls: Mapping[str, Callable[[], object]], *, base: str, rounds: int = 11, warmup: int = 2
) -> dict[str, Timing]:
    """Each call once a round, in turn, after `warmup` rounds that are not counted."""
    taken: dict[str, list[float]] = {name: [] for name in calls}
    for number in range(warmup + rounds):
        for name, call in calls.items():
            began = time.perf_counter()
            call()
            if number >= warmup:
                taken[name].append(time.perf_counter() - began)
    return {
        name: Timing(
            statistics.median(times),
            statistics.median(t / b for t, b in zip(times, taken[base], strict=True)),
        )
        for name, times in taken.items()
    }
