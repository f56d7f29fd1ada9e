"""What a step of training needs in memory, beyond a plain one."""

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
from deepdefense.seam.training import training_backend
from deepdefense.training.epoch import train_epoch
from deepdefense.training.recipe import Recipe
from deepdefense.zoo import Network

__all__ = ["MemoryTrial", "measure_extra_memory", "read_peak_memory", "run_in_new_process"]

T = TypeVar("T")


PROCESS_STATUS = Path("/proc/self/status")


def read_peak_memory() -> float | None:
    """The most memory this process has held so far, in MB; None where it is not told (Linux does).

    Not `resource.getrusage`, whose peak a process inherits from the one that began it.
    """
    if not PROCESS_STATUS.exists():
        return None
    found = re.search(r"VmHWM:\s+(\d+) kB", PROCESS_STATUS.read_text())
    return None if found is None else int(found[1]) / 1024


class MemoryTrial(NamedTuple):
    """A few batches to train on, from some weights."""

    framework: str
    network: Network
    weights: Mapping[str, npt.NDArray[Any]]
    x: np.ndarray
    y: np.ndarray
    batch_size: int
    objective: Objective


def run_in_new_process(function: Callable[..., T], *arguments: Any) -> T:
    """What a function gives in a process of its own, whose peak is its own."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def measure_extra_memory(trial: MemoryTrial) -> float | None:
    """How many MB training takes beyond plain training on the same batches.

    In a process of its own: what another method has held before does not count, and what a
    framework compiles does.
    """
    return run_in_new_process(_measure_growth, trial)


def _measure_growth(trial: MemoryTrial) -> float | None:
    backend = training_backend(trial.framework)
    recipe = Recipe(lr=0.0, batch_size=trial.batch_size)
    trainer = recipe.make_trainer(backend, backend.build(trial.network, trial.weights))
    held = []
    for objective in (Objective(), trial.objective):
        train_epoch(backend, trainer, trial.x, trial.y, recipe=recipe, objective=objective, epoch=0)
        held.append(read_peak_memory())
    plain, own = held
    return None if plain is None or own is None else own - plain
