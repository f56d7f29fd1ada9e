"""Networks of the zoo as Keras models, between the data's channels first and channels last."""

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
    """Build the network; a layer's name is the prefix of its weights in PyTorch, with dots."""
    inputs = keras.Input(network.input_shape, dtype=dtype)
    return keras.Model(inputs, _Graph(network)(inputs), name=network.name)


def _all_layers(layers: tuple[Layer, ...]) -> Iterator[Layer]:
    """Yield the layers, and those inside them."""
    for layer in layers:
        yield layer
        match layer:
            case Block(_, inner):
                yield from _all_layers(inner)
            case Residual(_, body, shortcut):
                yield from _all_layers((*body, *shortcut))


class _Graph:
    """Applies Keras layers one after another.

    Images have channels last, as TensorFlow's convolutions on CPUs require. Padding is a separate
    layer, since Keras's "same" may pad more at the end than at the beginning.
    """

    def __init__(self, network: Network) -> None:
        self._layers = network.layers
        self._image = any(isinstance(layer, Conv) for layer in _all_layers(network.layers))
        self._seeds = count()  # so that each build has the same dropout

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
                # Keras keeps the biased estimate of the variance, PyTorch the unbiased one.
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
    """Pads images [b h w c] with -inf on each side, before max pooling."""

    def __init__(self, width: int, **settings: Any) -> None:
        super().__init__(**settings)
        self._width = width

    def call(self, x: tf.Tensor) -> tf.Tensor:
        """[b h w c] -> [b h' w' c]."""
        sides = [[0, 0], [self._width] * 2, [self._width] * 2, [0, 0]]
        return tf.pad(x, sides, constant_values=-np.inf)

    def get_config(self) -> dict[str, Any]:
        """Return the arguments that Keras rebuilds the layer from."""
        return {**super().get_config(), "width": self._width}


@keras.saving.register_keras_serializable("deepdefense")
class AdaptiveAverage(keras.layers.Layer):  # type: ignore[misc]
    """`AdaptiveAveragePool`, with channels last."""

    def __init__(self, size: int, **settings: Any) -> None:
        super().__init__(**settings)
        self._pool = AdaptiveAveragePool(size)

    def call(self, x: Any) -> Any:
        """[b h w c] -> [b size size c]."""
        rows, columns = (tf.constant(self._pool.means(n), x.dtype) for n in x.shape[1:3])
        return einsum(x, rows, columns, "b h w c, r h, s w -> b r s c")

    def get_config(self) -> dict[str, Any]:
        """Return the arguments that Keras rebuilds the layer from."""
        return {**super().get_config(), "size": self._pool.size}
