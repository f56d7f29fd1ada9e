"""Keras's weights in PyTorch's names and layout, and back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import keras
import numpy as np
import numpy.typing as npt
from einops import rearrange

__all__ = ["Weight", "host", "named", "randomness"]

# By a layer's kind and a variable's name in Keras: PyTorch's name, and both layouts.
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
    """One variable of a Keras model, and how PyTorch lays it out."""

    variable: Any
    here: str
    there: str

    def get(self) -> npt.NDArray[Any]:
        """A copy, in PyTorch's layout."""
        return np.array(rearrange(host(self.variable), f"{self.here} -> {self.there}"), order="C")

    def tensor(self) -> Any:
        """Its value as a tensor, in PyTorch's layout."""
        return rearrange(self.variable.value, f"{self.here} -> {self.there}")

    def set(self, value: Any) -> None:
        """Assign a value in PyTorch's layout."""
        self.variable.assign(rearrange(value, f"{self.there} -> {self.here}"))


def host(variable: Any) -> npt.NDArray[Any]:
    """A copy of a Keras variable's value."""
    return np.array(variable.value.numpy())


def named(model: keras.Layer, prefix: str = "") -> dict[str, Weight]:
    """All weights of a model by names as PyTorch gives them: ``conv1.weight``."""
    found: dict[str, Weight] = {}
    below: set[int] = set()
    for child in _children(model):
        found |= named(child, f"{prefix}{child.name}.")
        below |= {id(variable) for variable in child.weights}
    for variable in model.weights:
        if id(variable) not in below:
            name = str(variable.name)
            found[prefix + _NAMES.get(name, name)] = Weight(variable, *_layout(model, variable))
    return found


def _children(layer: keras.Layer) -> Iterator[keras.Layer]:
    """The layers directly in a layer."""
    children: Iterator[keras.Layer] = layer._flatten_layers(include_self=False, recursive=False)
    return children


def _layout(layer: keras.Layer, variable: Any) -> tuple[str, str]:
    for kind, layouts in _KERNELS.items():
        if variable.name == "kernel" and type(layer) is kind:
            return layouts
    axes = " ".join(f"a{i}" for i in range(len(variable.shape)))
    return axes, axes


def randomness(model: keras.Layer) -> Mapping[str, Any]:
    """The states of a model's random generators, which Keras counts as variables."""
    weights = {id(variable) for variable in model.weights}
    states = [variable for variable in model.variables if id(variable) not in weights]
    return {str(i): variable for i, variable in enumerate(states)}
