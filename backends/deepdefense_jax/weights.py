"""Read and replace the parameters of a JAX model, and convert them to and from PyTorch's layout.

The name of a parameter is its path in the model's pytree, joined by dots.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import numpy.typing as npt
from einops import rearrange
from jax import Array

from deepdefense_jax.models import is_parameter

__all__ = [
    "Arrays",
    "from_torch_layout",
    "name_parameters",
    "replace_parameters",
    "to_torch_layout",
]

Arrays = Mapping[str, npt.NDArray[Any]]


def _name(path: Any) -> str:
    return jax.tree_util.keystr(path, simple=True, separator=".")


def name_parameters(model: Any) -> dict[str, Array]:
    """Map the name of every parameter of a model to the parameter's value."""
    paths, _ = jax.tree_util.tree_flatten_with_path(model)
    return {_name(path): leaf for path, leaf in paths if is_parameter(leaf)}


def _is_flax_kernel(name: str, value: Array) -> bool:
    """Return whether a parameter has flax's layout [... i o], which is [o i ...] in PyTorch."""
    return value.ndim > 1 and "kernel" in name.split(".")


def to_torch_layout(name: str, value: Array) -> Array:
    """Convert a parameter from the layout of its JAX library to PyTorch's layout."""
    return rearrange(value, "... i o -> o i ...") if _is_flax_kernel(name, value) else value


def from_torch_layout(name: str, value: Array) -> Array:
    """Convert a parameter from PyTorch's layout to the layout of its JAX library."""
    return rearrange(value, "o i ... -> ... i o") if _is_flax_kernel(name, value) else value


def replace_parameters(model: Any, parameters: Mapping[str, Array]) -> Any:
    """Return a copy of the model with all its parameters replaced by the given values."""
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: parameters[_name(path)] if is_parameter(leaf) else leaf, model
    )
