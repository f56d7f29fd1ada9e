"""Networks described once, as data; each backend builds its own native model from a description.

Weights carry the names and the layout of the PyTorch model (``conv1.weight`` [out in h w],
``fc1.weight`` [out in]), whichever framework holds them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from deepdefense.errors import InputError

__all__ = [
    "NETWORKS",
    "AveragePool",
    "Conv",
    "Flatten",
    "Layer",
    "Linear",
    "MaxPool",
    "Network",
    "ReLU",
    "initial_weights",
    "weight_shapes",
]

SPREAD = 0.01
# What it makes of MNIST: 784 pixels of deviation 79 give first activations of deviation 22.
FIRST_DEVIATION = SPREAD * 79 * 784**0.5


@dataclass(frozen=True)
class Conv:
    """A convolution with bias, stride 1: [b inputs h w] -> [b outputs h' w']."""

    name: str
    inputs: int
    outputs: int
    size: int
    padding: int = 0


@dataclass(frozen=True)
class Linear:
    """A linear map with bias: [b inputs] -> [b outputs]."""

    name: str
    inputs: int
    outputs: int


@dataclass(frozen=True)
class MaxPool:
    """The maximum over windows of size x size, without overlap."""

    size: int = 2


@dataclass(frozen=True)
class AveragePool:
    """The mean over windows of size x size, without overlap."""

    size: int = 2


@dataclass(frozen=True)
class ReLU:
    """max(x, 0)."""


@dataclass(frozen=True)
class Flatten:
    """[b ...] -> [b d], channels first."""


Layer: TypeAlias = Conv | Linear | MaxPool | AveragePool | ReLU | Flatten


@dataclass(frozen=True)
class Network:
    """A chain of layers for inputs of one shape."""

    name: str
    input_shape: tuple[int, ...]
    classes: int
    layers: tuple[Layer, ...]


def mlp(
    input_shape: tuple[int, ...], classes: int, hidden: tuple[int, ...] = (500, 150)
) -> Network:
    """The paper's fully connected network, d-500-150-k with ReLU; for inputs of any shape.

    Source: Yan, Guo and Zhang (2018), section 4.1.
    """
    sizes = (math.prod(input_shape), *hidden, classes)
    layers: list[Layer] = [Flatten()]
    for i, (inputs, outputs) in enumerate(pairwise(sizes), start=1):
        layers += [Linear(f"fc{i}", inputs, outputs), ReLU()]
    return Network("mlp", input_shape, classes, tuple(layers[:-1]))


def lenet(input_shape: tuple[int, ...], classes: int) -> Network:
    """LeNet as MatConvNet has it, without a ReLU after the convolutions.

    For images of 16 x 16 pixels or more.

    Source: LeCun et al. (1998); the variant of Moosavi-Dezfooli et al. (2016).
    """
    if len(input_shape) != 3 or min(input_shape[1:]) < 16:
        raise InputError(
            f"network lenet takes images [c h w] of 16 x 16 pixels or more, got {list(input_shape)}"
        )
    channels, height, width = input_shape
    features = 50 * (((height - 4) // 2 - 4) // 2) * (((width - 4) // 2 - 4) // 2)
    layers = (
        Conv("conv1", channels, 20, 5),
        MaxPool(),
        Conv("conv2", 20, 50, 5),
        MaxPool(),
        Flatten(),
        Linear("fc1", features, 500),
        ReLU(),
        Linear("fc2", 500, classes),
    )
    return Network("lenet", input_shape, classes, layers)


def convnet(input_shape: tuple[int, ...], classes: int) -> Network:
    """The paper's ConvNet, MatConvNet's for CIFAR-10: three convolutions, and two that classify.

    For images of 32 x 32 pixels or more; the fourth convolution takes all that is left of them.

    Source: Yan, Guo and Zhang (2018), section 4.2.
    """
    if len(input_shape) != 3 or min(input_shape[1:]) < 32 or len(set(input_shape[1:])) > 1:
        raise InputError(
            "network convnet takes square images [c h h] of 32 x 32 pixels or more, "
            f"got {list(input_shape)}"
        )
    layers = (
        Conv("conv1", input_shape[0], 32, 5, padding=2),
        MaxPool(),
        ReLU(),
        Conv("conv2", 32, 32, 5, padding=2),
        ReLU(),
        AveragePool(),
        Conv("conv3", 32, 64, 5, padding=2),
        ReLU(),
        AveragePool(),
        Conv("conv4", 64, 64, input_shape[1] // 2 // 2 // 2),
        ReLU(),
        Conv("conv5", 64, classes, 1),
        Flatten(),
    )
    return Network("convnet", input_shape, classes, layers)


NETWORKS: Mapping[str, Callable[[tuple[int, ...], int], Network]] = {
    "mlp": mlp,
    "lenet": lenet,
    "convnet": convnet,
}


def weight_shapes(network: Network) -> dict[str, tuple[int, ...]]:
    """The names and shapes of a network's weights, in the order of its layers.

    >>> weight_shapes(mlp((4,), 3, hidden=()))
    {'fc1.weight': (3, 4), 'fc1.bias': (3,)}
    """
    shapes: dict[str, tuple[int, ...]] = {}
    for layer in network.layers:
        if isinstance(layer, Conv | Linear):
            window = (layer.size, layer.size) if isinstance(layer, Conv) else ()
            shapes[f"{layer.name}.weight"] = (layer.outputs, layer.inputs, *window)
            shapes[f"{layer.name}.bias"] = (layer.outputs,)
    return shapes


def initial_weights(
    network: Network, seed: int, deviation: float
) -> dict[str, npt.NDArray[np.float32]]:
    """Weights to train from, the same for every framework: w ~ N(0, 0.01^2), biases 0.

    The first layer's spread follows the inputs' number n and standard deviation, 22 / (deviation
    sqrt(n)), so that neither their unit nor their size matters; on MNIST's pixels it is 0.01 too.

    Source: the MNIST example of MatConvNet (Vedaldi and Lenc, 2015), which the reference networks
    of Moosavi-Dezfooli et al. (2016) and Yan et al. (2018) come from.
    """
    random = np.random.default_rng(seed)
    first = FIRST_DEVIATION / (deviation * math.prod(network.input_shape) ** 0.5)
    weights: dict[str, npt.NDArray[np.float32]] = {}
    for name, shape in weight_shapes(network).items():
        if name.endswith(".bias"):
            weights[name] = np.zeros(shape, np.float32)
        else:
            drawn = random.normal(0.0, SPREAD if weights else first, shape)
            weights[name] = drawn.astype(np.float32)
    return weights
