"""Measure how much more memory training by a method needs than plain training."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from deepdefense.defenses.objective import Objective
from deepdefense.seam.training_contract import training_backend
from deepdefense.training.epoch import train_epoch
from deepdefense.training.recipe import Recipe
from deepdefense.zoo import Network

__all__ = ["MemoryTrial", "measure_extra_memory", "read_peak_memory", "run_in_new_process"]

ResultT = TypeVar("ResultT")
# `resource.getrusage` would include the peak memory of the parent process.
PROCESS_STATUS = Path("/proc/self/status")


def read_peak_memory() -> float | None:
    """Return the peak memory of this process so far, in MB; None on systems other than Linux."""
    if not PROCESS_STATUS.exists():
        return None
    peak = re.search(r"VmHWM:\s+(\d+) kB", PROCESS_STATUS.read_text())
    return None if peak is None else int(peak[1]) / 1024


class MemoryTrial(NamedTuple):
    """The input of `measure_extra_memory`: a network, a few training batches, and an objective."""

    framework: str
    network: Network
    weights: Mapping[str, npt.NDArray[Any]]
    x: np.ndarray
    y: np.ndarray
    batch_size: int
    objective: Objective


def run_in_new_process(function: Callable[..., ResultT], *arguments: Any) -> ResultT:
    """Call a function in a new process, which has its own peak memory, and return its result."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def measure_extra_memory(trial: MemoryTrial) -> float | None:
    """Return how many MB more training by the objective needs than plain training.

    The result includes the memory that the framework needs to compile the objective. Training runs
    in a new process, so earlier work in this process does not affect the result.
    """
    return run_in_new_process(_measure_growth, trial)


def _measure_growth(trial: MemoryTrial) -> float | None:
    """Train plainly, then by the objective; return by how many MB the peak memory rises."""
    backend = training_backend(trial.framework)
    recipe = Recipe(lr=0.0, batch_size=trial.batch_size)
    trainer = recipe.make_trainer(backend, backend.build(trial.network, trial.weights))
    peaks = []
    for objective in (Objective(), trial.objective):
        train_epoch(backend, trainer, trial.x, trial.y, recipe=recipe, objective=objective, epoch=0)
        peaks.append(read_peak_memory())
    plain, hardening = peaks
    return None if plain is None or hardening is None else hardening - plain
