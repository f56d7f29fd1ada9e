"""Descriptions of layers and of networks, from which each backend builds native ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

__all__ = [
    "AdaptiveAveragePool",
    "AveragePool",
    "BatchNorm",
    "Block",
    "Conv",
    "Dropout",
    "Flatten",
    "Layer",
    "Linear",
    "MaxPool",
    "Network",
    "ReLU",
    "Residual",
]


@dataclass(frozen=True)
class Conv:
    """A convolution: [b inputs h w] -> [b outputs h' w'], h' = (h + 2 padding - size) / stride + 1.

    h' is rounded down, as for pools: rows and columns left over at the end are dropped.
    """

    name: str
    inputs: int
    outputs: int
    size: int
    padding: int = 0
    stride: int = 1
    bias: bool = True


@dataclass(frozen=True)
class Linear:
    """A linear map with bias: [b inputs] -> [b outputs]."""

    name: str
    inputs: int
    outputs: int


@dataclass(frozen=True)
class BatchNorm:
    """(x - mean) / sqrt(variance + eps) * weight + bias, by feature: [b features ...] -> the same.

    In training mode, mean and variance are those of the batch, and the running estimates move
    towards them by the share `momentum`. In inference mode, they are the running estimates.

    Source: Ioffe and Szegedy (2015).
    """

    name: str
    features: int
    eps: float = 1e-5
    momentum: float = 0.1


@dataclass(frozen=True)
class Dropout:
    """In training, 0 with probability `rate`, else x / (1 - rate), by number; in inference, x.

    Source: Srivastava et al. (2014).
    """

    rate: float = 0.5


@dataclass(frozen=True)
class _Pool:
    size: int = 2
    stride: int | None = None
    padding: int = 0

    @property
    def step(self) -> int:
        """The distance between windows: the stride, or `size`, so that windows do not overlap."""
        return self.size if self.stride is None else self.stride


@dataclass(frozen=True)
class MaxPool(_Pool):
    """The maximum over windows of size x size; padding is -inf, so it is never the maximum."""


@dataclass(frozen=True)
class AveragePool(_Pool):
    """The mean over windows of size x size; padding zeros count in the mean."""


@dataclass(frozen=True)
class AdaptiveAveragePool:
    """The mean over size x size windows that cover an image of any size: -> [b c size size].

    With size 1, this is the mean of the whole image.
    """

    size: int = 1

    def means(self, length: int) -> npt.NDArray[np.float64]:
        """Return the matrix [size length] that averages along one side of an image.

        Window i goes from floor(i n / size) to ceil((i + 1) n / size), as in PyTorch.

        >>> AdaptiveAveragePool(2).means(3)
        array([[0.5, 0.5, 0. ],
               [0. , 0.5, 0.5]])
        """
        rows = np.zeros((self.size, length))
        for i, row in enumerate(rows):
            start, end = i * length // self.size, -(-(i + 1) * length // self.size)
            row[start:end] = 1 / (end - start)
        return rows


@dataclass(frozen=True)
class ReLU:
    """max(x, 0)."""


@dataclass(frozen=True)
class Flatten:
    """[b ...] -> [b d], channels first."""


@dataclass(frozen=True)
class Block:
    """A chain of layers under one name, which prefixes theirs: ``features.0.weight``."""

    name: str
    layers: tuple[Layer, ...]


@dataclass(frozen=True)
class Residual:
    """max(body(x) + shortcut(x), 0), where both are chains of layers; an empty shortcut is x.

    The name prefixes those of the layers: ``layer1.0.conv1.weight``.

    Source: He et al. (2016).
    """

    name: str
    body: tuple[Layer, ...]
    shortcut: tuple[Layer, ...] = ()


Layer: TypeAlias = (
    Conv
    | Linear
    | BatchNorm
    | Dropout
    | MaxPool
    | AveragePool
    | AdaptiveAveragePool
    | ReLU
    | Flatten
    | Block
    | Residual
)


@dataclass(frozen=True)
class Network:
    """A chain of layers for inputs of one shape.

    `spread` is the rule for the standard deviation of initial weights: see `initial_weights`.
    """

    name: str
    input_shape: tuple[int, ...]
    classes: int
    layers: tuple[Layer, ...]
    spread: Literal["fixed", "fan-in", "balanced"] = "fixed"
