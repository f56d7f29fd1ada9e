"""Copies of PyTorch tensors in host memory, such as the weights that a checkpoint saves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

__all__ = ["Arrays", "to_host"]

Arrays = Mapping[str, npt.NDArray[Any]]


def to_host(tensor: Tensor) -> npt.NDArray[Any]:
    """Copy a tensor to a NumPy array in C order."""
    # Weight files store values in C order. The tensor may have another order (channels last).
    return np.array(tensor.detach().cpu().numpy(), order="C")
