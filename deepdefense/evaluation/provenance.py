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
from deepdefense.seam.contract import Array

__all__ = ["NetworkInfo", "describe_data", "describe_environment", "to_json"]


@dataclass(frozen=True)
class NetworkInfo:
    """Which network a report is about."""

    name: str
    parameters: int | None
    weights: str


def describe_data(data: Dataset) -> dict[str, Any]:
    """What a report says of its data."""
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
    """What a result may depend on besides its settings; `array`, if given, lies where it was made.

    >>> import numpy as np
    >>> environment("numpy", np.zeros(1))["device"]
    'cpu'
    """
    # A framework may come in distributions of several names: TensorFlow has one for CPUs alone.
    installed = packages_distributions().get(framework, [framework])[0]
    # In the framework's own name, without TensorFlow's address of the machine before it.
    device = str(getattr(array, "device", "cpu")).rpartition("device:")[2]
    return {
        "python": platform.python_version(),
        **{name: version(name) for name in ("deepdefense", "numpy", "einops")},
        framework: version(installed),
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        **({} if array is None else {"device": device}),
    }


def to_json(value: Any) -> Any:
    """As JSON can hold it, which knows no infinity; of arrays in settings what tells them apart."""
    if isinstance(value, FrozenArray):
        return repr(value)
    if isinstance(value, Mapping):
        return {key: to_json(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_json(entry) for entry in value]
    return "inf" if value == math.inf else value
