"""Build networks of the zoo as Keras models.

Examples have channels first, as in all backends. Inside the Keras model, images have channels last.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from einops import einsum

from deepdefense.zoo import (
    AdaptiveAveragePool,
    AveragePool,
    BatchNorm,
    Block,
    Conv,
    Dropout,
    Flatten,
    Layer,
    Linear,
    MaxPool,
    Network,
    ReLU,
    Residual,
)

__all__ = ["AdaptiveAverage", "LowestPadding", "build_graph"]


def build_graph(network: Network, dtype: str) -> keras.Model:
    """Build a zoo network as a Keras model whose weights have the given dtype.

    The layer of the PyTorch weights conv1.weight and conv1.bias is called conv1.
    """
    inputs = keras.Input(network.input_shape, dtype=dtype)
    return keras.Model(inputs, _Graph(network)(inputs), name=network.name)


def _all_layers(layers: tuple[Layer, ...]) -> Iterator[Layer]:
    """Yield the layers and, after each layer, the layers inside it."""
    for layer in layers:
        yield layer
        match layer:
            case Block(_, inner):
                yield from _all_layers(inner)
            case Residual(_, body, shortcut):
                yield from _all_layers((*body, *shortcut))


class _Graph:
    """A function that applies the layers of a zoo network to a Keras tensor.

    Images are transposed to channels last, because TensorFlow's convolutions on CPUs require that.
    Padding is a separate layer, because Keras's padding "same" may be asymmetric.
    """

    def __init__(self, network: Network) -> None:
        self._layers = network.layers
        self._image = any(isinstance(layer, Conv) for layer in _all_layers(network.layers))
        self._seeds = count()  # seeds of the dropout layers, the same in every build

    def __call__(self, x: Any) -> Any:
        return self._chain(self._layers, keras.layers.Permute((2, 3, 1))(x) if self._image else x)

    def _chain(self, layers: tuple[Layer, ...], x: Any, prefix: str = "") -> Any:
        for layer in layers:
            x = self._apply(x, layer, prefix)
        return x

    def _apply(self, x: Any, layer: Layer, prefix: str) -> Any:
        match layer:
            case Conv(name, _, outputs, size, padding, stride, bias):
                return keras.layers.Conv2D(
                    outputs, size, stride, use_bias=bias, name=f"{prefix}{name}"
                )(_padded(x, padding))
            case Linear(name, _, outputs):
                return keras.layers.Dense(outputs, name=f"{prefix}{name}")(x)
            case BatchNorm(name, _, eps, momentum):
                # Unlike PyTorch, Keras updates the running variance with the biased estimate.
                return keras.layers.BatchNormalization(
                    momentum=1 - momentum, epsilon=eps, name=f"{prefix}{name}"
                )(x)
            case Dropout(rate):
                return keras.layers.Dropout(rate, seed=next(self._seeds))(x)
            case MaxPool(size, _, padding):
                padded = LowestPadding(padding)(x) if padding else x
                return keras.layers.MaxPooling2D(size, layer.step)(padded)
            case AveragePool(size, _, padding):
                return keras.layers.AveragePooling2D(size, layer.step)(_padded(x, padding))
            case AdaptiveAveragePool(size):
                return AdaptiveAverage(size)(x)
            case ReLU():
                return keras.layers.ReLU()(x)
            case Flatten():
                is_image = self._image and len(x.shape) == 4
                flat = keras.layers.Flatten()
                return flat(keras.layers.Permute((3, 1, 2))(x) if is_image else x)
            case Block(name, layers):
                return self._chain(layers, x, f"{prefix}{name}.")
            case Residual(name, body, shortcut):
                sums = [self._chain(part, x, f"{prefix}{name}.") for part in (body, shortcut)]
                return keras.layers.ReLU()(keras.layers.Add()(sums))


def _padded(x: Any, width: int) -> Any:
    return keras.layers.ZeroPadding2D(width)(x) if width else x


@keras.saving.register_keras_serializable("deepdefense")
class LowestPadding(keras.layers.Layer):  # type: ignore[misc]
    """A layer that pads images [b h w c] with -inf on each side, to precede a max pooling."""

    def __init__(self, width: int, **settings: Any) -> None:
        super().__init__(**settings)
        self._width = width

    def call(self, x: tf.Tensor) -> tf.Tensor:
        """Pad images: [b h w c] -> [b h' w' c]."""
        sides = [[0, 0], [self._width] * 2, [self._width] * 2, [0, 0]]
        return tf.pad(x, sides, constant_values=-np.inf)

    def get_config(self) -> dict[str, Any]:
        """Return the arguments from which Keras rebuilds the layer."""
        return {**super().get_config(), "width": self._width}


@keras.saving.register_keras_serializable("deepdefense")
class AdaptiveAverage(keras.layers.Layer):  # type: ignore[misc]
    """The zoo's `AdaptiveAveragePool` as a Keras layer, for images with channels last."""

    def __init__(self, size: int, **settings: Any) -> None:
        super().__init__(**settings)
        self._pool = AdaptiveAveragePool(size)

    def call(self, x: Any) -> Any:
        """Pool images: [b h w c] -> [b size size c]."""
        rows, columns = (tf.constant(self._pool.means(n), x.dtype) for n in x.shape[1:3])
        return einsum(x, rows, columns, "b h w c, r h, s w -> b r s c")

    def get_config(self) -> dict[str, Any]:
        """Return the arguments from which Keras rebuilds the layer."""
        return {**super().get_config(), "size": self._pool.size}
