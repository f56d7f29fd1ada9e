"""Time the default job, `deepdefense harden`, on a quiet machine and beside busy processes."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

from benchmarks.timing import time_alternately

__all__ = ["measure_job"]

BUSY_PROCESSES = 2
LIMIT_SECONDS = 600  # a job that takes longer is ended, and counts as if it took this long
RUN = "from deepdefense.app.cli import main; main()"
# These programs run the command with the number of CPU threads that it chooses, and with all
# threads, as if there were no choice.
PROGRAMS = {
    "chosen": RUN,
    "all": f"from deepdefense.seam import threads as t; "
    f"t.time_threads = lambda backend, work, limit, clock: t.Timings(limit, {{}}); {RUN}",
}


def measure_job(arguments: Sequence[str], rounds: int) -> Iterator[dict[str, Any]]:
    """Yield the wall time of the job, with the chosen threads and with all, quiet and not.

    `arguments` are further arguments of the command, such as a smaller number of epochs.
    """
    calls: dict[str, Callable[[], object]] = {}
    rows: dict[str, dict[str, Any]] = {}
    for busy in (0, BUSY_PROCESSES):
        for threads, program in PROGRAMS.items():
            name = f"{busy} {threads}"
            rows[name] = {"busy processes": busy, "threads": threads}
            calls[name] = partial(_run_job, program, arguments, busy)
    timings = time_alternately(calls, base="0 chosen", rounds=rounds, warmup=0)
    for name, row in rows.items():
        yield {**row, **timings[name]._asdict()}


def _run_job(program: str, arguments: Sequence[str], busy: int) -> None:
    environment = {key: value for key, value in os.environ.items() if key != "OMP_NUM_THREADS"}
    with (
        tempfile.TemporaryDirectory() as folder,
        _keep_busy(busy),
        suppress(subprocess.TimeoutExpired),
    ):
        subprocess.run(
            [sys.executable, "-c", program, "harden", "--out", f"{folder}/run", *arguments],
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            check=True,
            timeout=LIMIT_SECONDS,
        )


@contextmanager
def _keep_busy(count: int) -> Iterator[None]:
    """Open a context beside which `count` processes compute all the time."""
    processes = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()
