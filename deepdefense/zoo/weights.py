"""The names, shapes and initial values of the weights of the zoo's networks."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from deepdefense.zoo.layers import BatchNorm, Block, Conv, Layer, Linear, Network, Residual

__all__ = ["COUNTER", "initial_weights", "is_statistic", "weight_shapes"]

# The name under which PyTorch's batch norm counts the training batches. A set of weights may leave
# this counter out, because no network of the zoo uses it.
COUNTER = "num_batches_tracked"

# The standard deviation of initial weights with `spread` "fixed", in all layers but the first.
FIXED_DEVIATION = 0.01
# The standard deviation of the first layer's outputs on MNIST if its weights have FIXED_DEVIATION.
# Each output is a sum over 784 pixels, whose standard deviation is 79.
MNIST_OUTPUT_DEVIATION = FIXED_DEVIATION * 79 * 784**0.5


def weight_shapes(network: Network) -> dict[str, tuple[int, ...]]:
    """Return the shapes of a network's weights by name, in the order of its layers.

    Names and shapes are those of PyTorch's state dict, which includes the batch-norm statistics.

    >>> weight_shapes(Network("tiny", (4,), 3, (Linear("fc", 4, 3),)))
    {'fc.weight': (3, 4), 'fc.bias': (3,)}
    """
    return dict(_list_shapes(network.layers, ""))


def _list_shapes(layers: tuple[Layer, ...], prefix: str) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Yield the name, preceded by `prefix`, and the shape of each weight of the layers."""
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
    """Return whether a weight of this name is a batch-norm statistic rather than a parameter.

    >>> is_statistic("layer1.0.bn1.running_mean"), is_statistic("layer1.0.bn1.weight")
    (True, False)
    """
    return name.endswith((".running_mean", ".running_var", f".{COUNTER}"))


def initial_weights(
    network: Network, seed: int, deviation: float
) -> dict[str, npt.NDArray[np.float32]]:
    """Return random initial weights by name, the same for every framework.

    Weights are drawn from N(0, s^2); biases are 0. `deviation` is the standard deviation of the
    network's inputs. The network's `spread` is the rule that sets s in each layer:

    - "fixed": s = 0.01 in all layers but the first. In the first layer, with n for the number of
      values in an example, s = 22 / (deviation * sqrt(n)), so that the size of the layer's outputs
      depends neither on the unit of the inputs nor on n.
    - "fan-in": s = sqrt(2 / n), where each output of the layer is a sum of n terms. Activations
      then keep their size through many layers with ReLU. In the first layer, s is divided by
      `deviation`.
    - "balanced": s = sqrt(2 / n) / deviation^(1 / L) in each of the L layers, with the n of
      "fan-in". A gradient step then changes the weights of every layer by about the same fraction
      of their size. Use "balanced" only for a chain of layers without batch norm.

    Batch norm starts as the identity, with weight and variance 1, and bias and mean 0. The result
    does not contain batch norm's `COUNTER`.

    Source: "fixed" is the MNIST example of MatConvNet (Vedaldi and Lenc, 2015). "fan-in" is the
    rule of He et al. (2015). Neyshabur, Salakhutdinov and Srebro (2015), "Path-SGD", explain why
    layers should be balanced.
    """
    random = np.random.default_rng(seed)
    weights: dict[str, npt.NDArray[np.float32]] = {}
    shapes = weight_shapes(network)
    layers = sum(len(shape) > 1 for shape in shapes.values())
    balanced = network.spread == "balanced"
    for name, shape in shapes.items():
        if name.endswith(COUNTER):
            continue  # no network uses the counter
        if name.endswith((".bias", ".running_mean")):
            weights[name] = np.zeros(shape, np.float32)
        elif len(shape) == 1:
            weights[name] = np.ones(shape, np.float32)
        else:
            first = not weights
            divisor = deviation ** (1 / layers) if balanced else deviation if first else 1.0
            layer_deviation = _weight_deviation(network, shape, divisor, first=first)
            weights[name] = random.normal(0.0, layer_deviation, shape).astype(np.float32)
    return weights


def _weight_deviation(
    network: Network, shape: tuple[int, ...], divisor: float, *, first: bool
) -> float:
    """Return the standard deviation s of a layer's initial weights, by the rule `network.spread`.

    `divisor` compensates for the standard deviation of the network's inputs. With "fixed", it is
    used only in the first layer.
    """
    if network.spread != "fixed":
        return math.sqrt(2 / math.prod(shape[1:])) / divisor
    if not first:
        return FIXED_DEVIATION
    size = math.prod(network.input_shape)
    deviation: float = MNIST_OUTPUT_DEVIATION / (divisor * size**0.5)
    return deviation
