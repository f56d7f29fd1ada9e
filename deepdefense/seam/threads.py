"""Choose the number of CPU threads by measurement, and restore the former number afterwards.

In small networks, the threads of one operation spend most of their time waiting for each other. If
other programs use the same cores, several threads can be many times slower than one thread.
"""

from __future__ import annotations

import math
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, Protocol

from deepdefense.seam.contract import Array, Backend
from deepdefense.seam.progress import Watcher
from deepdefense.seam.training_contract import TrainingBackend

__all__ = ["TRIAL_EXAMPLES", "ThreadRecord", "Timings", "Work", "fit_threads", "time_threads"]

Work = Callable[[], object]  # one trial of the computation that is timed

TRIAL_EXAMPLES = 100  # the number of examples in the batch of a trial
ROUNDS = 5  # each round times one trial with every number of threads
BUDGET_SECONDS = 0.3  # no round begins later than this
LONG_TRIAL_SECONDS = 0.25  # longer trials are of large networks, for which threads pay off
TOLERANCE = 1.15  # choose fewer threads if they take at most this many times the shortest time

_in_use = threading.Lock()  # held by the call of `fit_threads` that has set the number of threads


class ThreadRecord(Protocol):
    """A store for the number of threads of an interruptible run.

    The number of threads changes rounding errors, so a resumed run uses the number of its start.
    """

    def load(self) -> int | None:
        """Return the number that was saved, or None if none was saved."""
        ...

    def save(self, count: int) -> None:
        """Save the number of threads."""
        ...


class Timings(NamedTuple):
    """The chosen number of threads, and the median seconds of a trial by number of threads.

    `seconds` is empty if the trials were too long to be repeated.
    """

    chosen: int
    seconds: dict[int, float]


@contextmanager
def fit_threads(
    backend: Backend,
    model: Any,
    x: Array,
    make_work: Callable[[], Work],
    *,
    record: ThreadRecord | None,
    watcher: Watcher,
    clock: Callable[[], float] = time.perf_counter,
) -> Iterator[None]:
    """Open a context with the number of CPU threads that suits the work, at most the present one.

    Nothing happens if `TrainingBackend.thread_count` returns None, or inside another such context,
    also in another Python thread.

    Args:
        backend: the backend that computes.
        model: the model.
        x: a batch on the device of the computation.
        make_work: returns a trial, a representative piece of the computation inside the context.
            It is called only if there is a choice.
        record: the store of an interruptible run, whose number is used if there is one.
        watcher: receives a line if fewer threads are used.
        clock: returns the time in seconds.
    """
    limit = backend.thread_count(model, x) if isinstance(backend, TrainingBackend) else None
    if not isinstance(backend, TrainingBackend) or limit is None:
        yield
        return
    if not _in_use.acquire(blocking=False):
        yield
        return
    try:
        recorded = record.load() if record else None
        with backend.limit_threads(limit):  # restores the number if a trial fails
            if recorded is not None:
                chosen = min(recorded, limit)
            elif limit == 1:
                chosen = 1
            else:
                timings = time_threads(backend, make_work(), limit, clock)
                chosen = timings.chosen
                _announce_choice(timings, limit, watcher)
        if record and recorded is None:
            record.save(chosen)
        with backend.limit_threads(chosen):
            yield
    finally:
        _in_use.release()


def time_threads(
    backend: TrainingBackend, work: Work, limit: int, clock: Callable[[], float]
) -> Timings:
    """Time the work with 1, sqrt(limit) and `limit` threads, and choose a number.

    The choice is the smallest number whose median time is at most `TOLERANCE` times the shortest.
    If one trial with one thread takes longer than `LONG_TRIAL_SECONDS`, the choice is `limit`.
    """
    counts = sorted({1, math.isqrt(limit), limit})

    def time_trial(count: int) -> float:
        with backend.limit_threads(count):
            begun = clock()
            work()
            return clock() - begun

    time_trial(1)  # the first trial also allocates memory and loads code
    if time_trial(1) > LONG_TRIAL_SECONDS:
        return Timings(limit, {})
    seconds: dict[int, list[float]] = {count: [] for count in counts}
    begun = clock()
    for _ in range(ROUNDS):
        for count in counts:
            seconds[count].append(time_trial(count))
        if clock() - begun > BUDGET_SECONDS:
            break
    medians = {count: statistics.median(times) for count, times in seconds.items()}
    longest = TOLERANCE * min(medians.values())
    return Timings(next(count for count in counts if medians[count] <= longest), medians)


def _announce_choice(timings: Timings, limit: int, watcher: Watcher) -> None:
    """Report the choice, if it is less than `limit`, with the times on which it is based."""
    if timings.chosen < limit:
        chosen, present = (1e3 * timings.seconds[count] for count in (timings.chosen, limit))
        watcher.say(
            f"{timings.chosen} of {limit} CPU threads: a trial takes {chosen:.3g} ms, "
            f"with {limit} threads {present:.3g} ms"
        )
