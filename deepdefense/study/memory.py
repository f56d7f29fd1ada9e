"""What a step of training needs in memory, beyond a plain one."""

from __future__ import annotations

import re
from collections.abc import Mapping
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from deepdefense.objective import Objective
from deepdefense.training import Recipe, train_epoch, training_backend
from deepdefense.zoo import Network

__all__ = ["beyond_plain", "peak"]

STATUS = Path("/proc/self/status")


def peak() -> float | None:
    """The most memory this process has held so far, in MB; None where it is not told (Linux does).

    Not `resource.getrusage`, whose peak a process inherits from the one that began it.
    """
    if not STATUS.exists():
        return None
    found = re.search(r"VmHWM:\s+(\d+) kB", STATUS.read_text())
    return None if found is None else int(found[1]) / 1024


def beyond_plain(
    framework: str,
    network: Network,
    weights: Mapping[str, npt.NDArray[Any]],
    x: np.ndarray,
    y: np.ndarray,
    objective: Objective,
    batch_size: int,
) -> float | None:
    """How many MB training on some batches takes beyond plain training on them.

    In a process of its own: what another method has held before does not count, and what a
    framework compiles does.
    """
    with get_context("spawn").Pool(1) as pool:
        return pool.apply(_grown, (framework, network, weights, x, y, objective, batch_size))


def _grown(
    framework: str,
    network: Network,
    weights: Mapping[str, npt.NDArray[Any]],
    x: np.ndarray,
    y: np.ndarray,
    objective: Objective,
    batch_size: int,
) -> float | None:
    backend = training_backend(framework)
    recipe = Recipe(lr=0.0, batch_size=batch_size)
    trainer = backend.trainer(backend.build(network, weights), recipe)
    held = []
    for each in (Objective(), objective):
        train_epoch(backend, trainer, x, y, recipe=recipe, objective=each, epoch=0)
        held.append(peak())
    plain, own = held
    return None if plain is None or own is None else own - plain
