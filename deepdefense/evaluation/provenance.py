"""Where a result comes from: which network, which data, which versions."""

from __future__ import annotations

import math
import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import packages_distributions, version
from typing import Any

from deepdefense.evaluation.dataset import Dataset
from deepdefense.geometry.bounds import FrozenArray
from deepdefense.seam.choosing import get_backend
from deepdefense.seam.contract import Array

__all__ = ["NetworkInfo", "Provenance", "describe_data", "describe_environment", "to_json"]


@dataclass(frozen=True)
class NetworkInfo:
    """The network that a report describes."""

    name: str
    parameters: int | None
    weights: str


@dataclass(frozen=True)
class Provenance:
    """The networks and the data of an evaluation, as its report names them."""

    network: NetworkInfo
    reference: NetworkInfo
    data: Mapping[str, Any]


def describe_data(data: Dataset) -> dict[str, Any]:
    """Return what a report of training says of its data."""
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
    """Return the versions and the machine; the device is that of `array`, if it is given.

    >>> import numpy as np
    >>> describe_environment("numpy", np.zeros(1))["device"]
    'cpu'
    """
    # The distribution may have another name than the framework, as TensorFlow's for CPUs has.
    installed = packages_distributions().get(framework, [framework])[0]
    return {
        "python": platform.python_version(),
        **{name: version(name) for name in ("deepdefense", "numpy", "einops")},
        framework: version(installed),
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        **({} if array is None else {"device": get_backend(framework).device_of(array)}),
    }


def to_json(value: Any) -> Any:
    """Return a value as JSON can hold it: infinity as "inf", and an array in settings as a text."""
    if isinstance(value, FrozenArray):
        return repr(value)
    if isinstance(value, Mapping):
        return {key: to_json(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_json(entry) for entry in value]
    return "inf" if value == math.inf else value
