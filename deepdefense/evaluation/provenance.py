"""Describes the origin of a result: the network, the data, the versions and the machine."""

from __future__ import annotations

import math
import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, packages_distributions, version
from typing import Any

from deepdefense.evaluation.dataset import Dataset
from deepdefense.geometry.bounds import FrozenArray
from deepdefense.seam.choosing import get_backend
from deepdefense.seam.contract import Array, Backend
from deepdefense.seam.training_contract import TrainingBackend

__all__ = ["NetworkInfo", "Provenance", "describe_data", "describe_environment", "to_json"]


@dataclass(frozen=True)
class NetworkInfo:
    """The description of a network in a report."""

    name: str
    parameters: int | None  # the number of weights, if it is known
    weights: str  # the origin of the weights: a file, or a phrase such as "given"


@dataclass(frozen=True)
class Provenance:
    """Descriptions of the evaluated network, the undefended reference network, and the data."""

    network: NetworkInfo
    reference: NetworkInfo
    data: Mapping[str, Any]


def describe_data(data: Dataset) -> dict[str, Any]:
    """Return a description of a data set, for reports of training."""
    return {
        "name": data.name,
        "train": len(data.x_train),
        "test": len(data.x_test),
        "classes": data.classes,
        "input_shape": tuple(data.x_train.shape[1:]),
        "preprocessing": data.preprocessing,
        "fingerprint": data.fingerprint(),
    }


def describe_environment(framework: str, array: Array = None) -> dict[str, Any]:
    """Return the versions of the software, and a description of the machine.

    If `array` is given, the result also names the device that holds the array, and the number of
    CPU threads in use, on which rounding errors depend.

    >>> import numpy as np
    >>> describe_environment("numpy", np.zeros(1))["device"]
    'cpu'
    """
    return {
        "python": platform.python_version(),
        **{name: version(name) for name in ("deepdefense", "numpy", "einops")},
        framework: _find_version(framework),
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        **({} if array is None else _describe_device(get_backend(framework), array)),
    }


def _find_version(module: str) -> str:
    """Return the version of the package that contains a module."""
    try:
        return version(module)
    except PackageNotFoundError:
        # The package may have another name than the module: tensorflow-cpu for tensorflow. This
        # search reads the metadata of all packages, so it is slow.
        return version(packages_distributions()[module][0])


def _describe_device(backend: Backend, array: Array) -> dict[str, Any]:
    """Return the device that holds the array, and the number of CPU threads, if it can change."""
    threads = backend.thread_count(None, array) if isinstance(backend, TrainingBackend) else None
    device = {"device": backend.device_of(array)}
    return device if threads is None else {**device, "threads": threads}


def to_json(value: Any) -> Any:
    """Convert a value so that JSON can represent it.

    Infinity becomes "inf", an array becomes its text representation, and a tuple becomes a list,
    also inside mappings, lists and tuples.
    """
    if isinstance(value, FrozenArray):
        return repr(value)
    if isinstance(value, Mapping):
        return {key: to_json(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_json(entry) for entry in value]
    return "inf" if value == math.inf else value
