"""The weights of networks: their names and shapes, which are PyTorch's, and initial values."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from deepdefense.zoo.layers import BatchNorm, Block, Conv, Layer, Linear, Network, Residual

__all__ = ["COUNTER", "initial_weights", "is_statistic", "weight_shapes"]

# PyTorch's batch norm counts the batches that it has seen. Nothing that the zoo computes depends on
# their number, so weights may come with it or without.
COUNTER = "num_batches_tracked"

FIXED_DEVIATION = 0.01
# What it makes of MNIST: 784 pixels of deviation 79 give first activations of deviation 22.
MNIST_ACTIVATION_DEVIATION = FIXED_DEVIATION * 79 * 784**0.5


def weight_shapes(network: Network) -> dict[str, tuple[int, ...]]:
    """The names and shapes of a network's weights, in the order of its layers.

    They are those of PyTorch's state dict, batch norm's statistics among them.

    >>> weight_shapes(Network("tiny", (4,), 3, (Linear("fc", 4, 3),)))
    {'fc.weight': (3, 4), 'fc.bias': (3,)}
    """
    return dict(_list_shapes(network.layers, ""))


def _list_shapes(layers: tuple[Layer, ...], prefix: str) -> Iterator[tuple[str, tuple[int, ...]]]:
    for layer in layers:
        match layer:
            case Conv(name, inputs, outputs, size):
                yield f"{prefix}{name}.weight", (outputs, inputs, size, size)
                if layer.bias:
                    yield f"{prefix}{name}.bias", (outputs,)
            case Linear(name, inputs, outputs):
                yield f"{prefix}{name}.weight", (outputs, inputs)
                yield f"{prefix}{name}.bias", (outputs,)
            case BatchNorm(name, features):
                for part in ("weight", "bias", "running_mean", "running_var"):
                    yield f"{prefix}{name}.{part}", (features,)
                yield f"{prefix}{name}.{COUNTER}", ()
            case Block(name, inner):
                yield from _list_shapes(inner, f"{prefix}{name}.")
            case Residual(name, body, shortcut):
                yield from _list_shapes((*body, *shortcut), f"{prefix}{name}.")
            case _:
                pass


def is_statistic(name: str) -> bool:
    """Whether a weight of that name is an estimate that training keeps, not a parameter.

    >>> is_statistic("layer1.0.bn1.running_mean"), is_statistic("layer1.0.bn1.weight")
    (True, False)
    """
    return name.endswith((".running_mean", ".running_var", f".{COUNTER}"))


def initial_weights(
    network: Network, seed: int, deviation: float
) -> dict[str, npt.NDArray[np.float32]]:
    """Weights to train from, the same for every framework: w ~ N(0, s^2), biases 0.

    The network's `spread` says which s:

    - "fixed": 0.01. The first layer's follows the inputs' number n and standard deviation,
      22 / (deviation sqrt(n)), so that neither their unit nor their size matters; on MNIST's pixels
      it is 0.01 too.
    - "fan-in": sqrt(2 / n), with n the numbers that one output is a sum over, which carries the
      signal through many layers of ReLU. The first layer's is divided by the inputs' deviation.
    - "balanced": the same, but each of the L layers' is divided by deviation^(1 / L). The outputs
      are those of "fan-in", and a gradient step changes every layer at about the same rate, not the
      first deviation^2 times as fast as the others (4,000 times, for pixels 0..255). For layers
      in a row, without batch norm.

    Batch norm begins as the identity: weight and variance 1, bias and mean 0, no batch counted.

    Source: "fixed" is the MNIST example of MatConvNet (Vedaldi and Lenc, 2015), which the reference
    networks of Moosavi-Dezfooli et al. (2016) and Yan et al. (2018) come from; "fan-in" is He et
    al. (2015). Why balance matters: Neyshabur, Salakhutdinov and Srebro (2015), "Path-SGD".
    """
    random = np.random.default_rng(seed)
    weights: dict[str, npt.NDArray[np.float32]] = {}
    shapes = weight_shapes(network)
    layers = sum(len(shape) > 1 for shape in shapes.values())
    balanced = network.spread == "balanced"
    for name, shape in shapes.items():
        if name.endswith(COUNTER):
            continue  # no framework needs it to begin
        if name.endswith((".bias", ".running_mean")):
            weights[name] = np.zeros(shape, np.float32)
        elif len(shape) == 1:
            weights[name] = np.ones(shape, np.float32)
        else:
            first = not weights
            divided = deviation ** (1 / layers) if balanced else deviation if first else 1.0
            spread = _find_deviation(network, shape, divided, first=first)
            weights[name] = random.normal(0.0, spread, shape).astype(np.float32)
    return weights


def _find_deviation(
    network: Network, shape: tuple[int, ...], divided: float, *, first: bool
) -> float:
    """The deviation of a layer's weights, which divide so much of the inputs' out."""
    if network.spread != "fixed":
        return math.sqrt(2 / math.prod(shape[1:])) / divided
    if not first:
        return FIXED_DEVIATION
    of_first: float = MNIST_ACTIVATION_DEVIATION / (divided * math.prod(network.input_shape) ** 0.5)
    return of_first
