"""Convert the weights of Keras models to and from PyTorch's names and layout."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf
from einops import rearrange

__all__ = ["Arrays", "Weight", "name_weights", "random_states", "to_host"]

Arrays = Mapping[str, npt.NDArray[Any]]

# For each kind of layer, the axes of its kernel in Keras and in PyTorch (i input, o output).
_KERNELS = {keras.layers.Dense: ("i o", "o i"), keras.layers.Conv2D: ("h w i o", "o i h w")}
# PyTorch's names for the weights of Keras layers.
_NAMES = {
    "kernel": "weight",
    "bias": "bias",
    "gamma": "weight",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}


class Weight(NamedTuple):
    """A weight of a Keras model: the variable, and the order of its axes in Keras and PyTorch."""

    variable: Any
    keras_axes: str
    torch_axes: str

    def get(self) -> npt.NDArray[Any]:
        """Copy the value to a NumPy array in PyTorch's layout."""
        return np.array(
            rearrange(to_host(self.variable), f"{self.keras_axes} -> {self.torch_axes}"), order="C"
        )

    def tensor(self) -> Any:
        """Return the value as a TensorFlow tensor in PyTorch's layout."""
        # The value of a Keras variable is a `tf.Variable`, which is no tensor.
        value = tf.convert_to_tensor(self.variable.value)
        return rearrange(value, f"{self.keras_axes} -> {self.torch_axes}")

    def set(self, value: Any) -> None:
        """Assign the variable a value that has PyTorch's layout."""
        self.variable.assign(rearrange(value, f"{self.torch_axes} -> {self.keras_axes}"))


def to_host(variable: Any) -> npt.NDArray[Any]:
    """Copy the value of a Keras variable to a NumPy array."""
    return np.array(variable.value.numpy())


def name_weights(model: keras.Layer, prefix: str = "") -> dict[str, Weight]:
    """Map the PyTorch name of every weight of a model, such as ``conv1.weight``, to the weight."""
    weights: dict[str, Weight] = {}
    in_children: set[int] = set()
    for child in _children(model):
        weights |= name_weights(child, f"{prefix}{child.name}.")
        in_children |= {id(variable) for variable in child.weights}
    for variable in model.weights:
        if id(variable) not in in_children:
            name = str(variable.name)
            weights[prefix + _NAMES.get(name, name)] = Weight(variable, *_layout(model, variable))
    return weights


def _children(layer: keras.Layer) -> Iterator[keras.Layer]:
    """Iterate over the direct sublayers of a layer."""
    children: Iterator[keras.Layer] = layer._flatten_layers(include_self=False, recursive=False)
    return children


def _layout(layer: keras.Layer, variable: Any) -> tuple[str, str]:
    for kind, layouts in _KERNELS.items():
        if variable.name == "kernel" and type(layer) is kind:
            return layouts
    axes = " ".join(f"a{i}" for i in range(len(variable.shape)))
    return axes, axes


def random_states(model: keras.Layer) -> Mapping[str, Any]:
    """Return the Keras variables that hold the states of a model's random generators, by index."""
    weights = {id(variable) for variable in model.weights}
    states = [variable for variable in model.variables if id(variable) not in weights]
    return {str(i): variable for i, variable in enumerate(states)}
