"""Conversion of Keras weights to and from PyTorch's names and layout."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import keras
import numpy as np
import numpy.typing as npt
from einops import rearrange

__all__ = ["Arrays", "Weight", "name_weights", "random_states", "to_host"]

Arrays = Mapping[str, npt.NDArray[Any]]

# The layouts of kernels in Keras and in PyTorch, and PyTorch's names for Keras's.
_KERNELS = {keras.layers.Dense: ("i o", "o i"), keras.layers.Conv2D: ("h w i o", "o i h w")}
_NAMES = {
    "kernel": "weight",
    "bias": "bias",
    "gamma": "weight",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}


class Weight(NamedTuple):
    """One variable of a Keras model, and its layout there and in PyTorch."""

    variable: Any
    keras_axes: str
    torch_axes: str

    def get(self) -> npt.NDArray[Any]:
        """Copy the value in PyTorch's layout."""
        return np.array(
            rearrange(to_host(self.variable), f"{self.keras_axes} -> {self.torch_axes}"), order="C"
        )

    def tensor(self) -> Any:
        """Return the value as a tensor in PyTorch's layout."""
        return rearrange(self.variable.value, f"{self.keras_axes} -> {self.torch_axes}")

    def set(self, value: Any) -> None:
        """Assign a value in PyTorch's layout."""
        self.variable.assign(rearrange(value, f"{self.torch_axes} -> {self.keras_axes}"))


def to_host(variable: Any) -> npt.NDArray[Any]:
    """Copy the value of a Keras variable."""
    return np.array(variable.value.numpy())


def name_weights(model: keras.Layer, prefix: str = "") -> dict[str, Weight]:
    """Return all weights of a model by PyTorch's names, such as ``conv1.weight``."""
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
    """Return the layers directly in a layer."""
    children: Iterator[keras.Layer] = layer._flatten_layers(include_self=False, recursive=False)
    return children


def _layout(layer: keras.Layer, variable: Any) -> tuple[str, str]:
    for kind, layouts in _KERNELS.items():
        if variable.name == "kernel" and type(layer) is kind:
            return layouts
    axes = " ".join(f"a{i}" for i in range(len(variable.shape)))
    return axes, axes


def random_states(model: keras.Layer) -> Mapping[str, Any]:
    """Return the states of a model's random generators, which are Keras variables too."""
    weights = {id(variable) for variable in model.weights}
    states = [variable for variable in model.variables if id(variable) not in weights]
    return {str(i): variable for i, variable in enumerate(states)}
