"""Classes that describe layers and networks; each backend builds native models from them."""

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
    """A 2-d convolution with size x size kernels: [b inputs h w] -> [b outputs h' w'].

    The output height is h' = floor((h + 2 padding - size) / stride) + 1. The output width w'
    follows from w by the same formula, which also holds for pooling layers.
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
    """A fully connected layer with bias: [b inputs] -> [b outputs]."""

    name: str
    inputs: int
    outputs: int


@dataclass(frozen=True)
class BatchNorm:
    """Batch normalisation of each feature: (x - mean) / sqrt(variance + eps) * weight + bias.

    Input and output have the shape [b features ...]. In training mode, mean and variance are
    computed over the batch, and each running estimate e is updated with the batch's value v to
    (1 - momentum) e + momentum v. In inference mode, mean and variance are the running estimates.

    Source: Ioffe and Szegedy (2015).
    """

    name: str
    features: int
    eps: float = 1e-5
    momentum: float = 0.1


@dataclass(frozen=True)
class Dropout:
    """Dropout: in training mode, set each element to 0 with probability `rate`.

    The other elements are divided by 1 - rate. In inference mode, the output is the input.

    Source: Srivastava et al. (2014).
    """

    rate: float = 0.5


@dataclass(frozen=True)
class _Pool:
    """The settings of a pooling layer: windows of size x size, `stride` apart."""

    size: int = 2
    stride: int | None = None
    padding: int = 0

    @property
    def step(self) -> int:
        """The distance between windows: `stride`, or `size` (no overlap) if `stride` is None."""
        return self.size if self.stride is None else self.stride


@dataclass(frozen=True)
class MaxPool(_Pool):
    """Max pooling: the maximum over each window of size x size.

    Padding is -inf, so that it is never the maximum.
    """


@dataclass(frozen=True)
class AveragePool(_Pool):
    """Average pooling: the mean over each window of size x size, zeros of the padding included."""


@dataclass(frozen=True)
class AdaptiveAveragePool:
    """Average pooling to a fixed output size: [b c h w] -> [b c size size] for any h and w.

    The image is divided into `size` rows and `size` columns of windows, which may overlap. Each
    output is the mean over one window. With size 1, the output is the mean of the whole image.
    """

    size: int = 1

    def means(self, length: int) -> npt.NDArray[np.float64]:
        """Return the matrix [size length] that averages over the windows along one image axis.

        `length` is the number of pixels along the axis. Row i averages over the pixels from
        floor(i length / size) up to, but not including, ceil((i + 1) length / size), as in PyTorch.

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
    """The activation max(x, 0), elementwise."""


@dataclass(frozen=True)
class Flatten:
    """Flatten each example into a vector: [b ...] -> [b d].

    Images are flattened in the order [c h w], also in a framework whose layout is [h w c], so that
    the weights of the next layer are the same in every framework.
    """


@dataclass(frozen=True)
class Block:
    """A chain of layers that share a name.

    The weights of the layers have names that start with the block's name: ``features.0.weight``.
    """

    name: str
    layers: tuple[Layer, ...]


@dataclass(frozen=True)
class Residual:
    """A residual block: max(body(x) + shortcut(x), 0).

    `body` and `shortcut` are chains of layers; an empty shortcut returns x unchanged. The weights
    of the layers have names that start with the block's name: ``layer1.0.conv1.weight``.

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
    """A network architecture: a chain of layers for examples of the shape `input_shape`.

    `classes` is the number of logits. `spread` is the rule that sets the standard deviation of the
    initial weights, see `initial_weights`.
    """

    name: str
    input_shape: tuple[int, ...]
    classes: int
    layers: tuple[Layer, ...]
    spread: Literal["fixed", "fan-in", "balanced"] = "fixed"
