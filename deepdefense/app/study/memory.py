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

__all__ = ["Trial", "alone", "beyond_plain", "peak"]

T = TypeVar("T")


STATUS = Path("/proc/self/status")


def peak() -> float | None:
    """The most memory this process has held so far, in MB; None where it is not told (Linux does).

    Not `resource.getrusage`, whose peak a process inherits from the one that began it.
    """
    if not STATUS.exists():
        return None
    found = re.search(r"VmHWM:\s+(\d+) kB", STATUS.read_text())
    return None if found is None else int(found[1]) / 1024


class Trial(NamedTuple):
    """A few batches to train on, from some weights."""

    framework: str
    network: Network
    weights: Mapping[str, npt.NDArray[Any]]
    x: np.ndarray
    y: np.ndarray
    batch_size: int
    objective: Objective


def alone(function: Callable[..., T], *arguments: Any) -> T:
    """What a function gives in a process of its own, whose peak is its own."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def beyond_plain(trial: Trial) -> float | None:
    """How many MB training takes beyond plain training on the same batches.

    In a process of its own: what another method has held before does not count, and what a
    framework compiles does.
    """
    return alone(_grown, trial)


def _grown(trial: Trial) -> float | None:
    backend = training_backend(trial.framework)
    recipe = Recipe(lr=0.0, batch_size=trial.batch_size)
    trainer = recipe.make_trainer(backend, backend.build(trial.network, trial.weights))
    held = []
    for objective in (Objective(), trial.objective):
        train_epoch(backend, trainer, trial.x, trial.y, recipe=recipe, objective=objective, epoch=0)
        held.append(peak())
    plain, own = held
    return None if plain is None or own is None else own - plain
