"""Find the dtype of a JAX model, and open the model in inference mode.

A JAX model is a function, a pytree, or a module of equinox, flax or Keras.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

__all__ = ["dtype_of", "is_parameter", "open_inference"]


def is_parameter(leaf: Any) -> bool:
    """Return whether a leaf of a pytree is a floating or complex array, which can be trained."""
    return isinstance(leaf, jax.Array) and bool(jnp.issubdtype(leaf.dtype, jnp.inexact))


def dtype_of(model: Any) -> Any:
    """Return the dtype of an array, or of the first parameter of a model.

    Return None for a function without parameters.
    """
    keras = sys.modules.get("keras")
    if keras and isinstance(model, keras.Layer):
        return jnp.dtype(model.variable_dtype)
    first = next(filter(is_parameter, jax.tree_util.tree_leaves(model)), None)
    return None if first is None else first.dtype


@contextmanager
def open_inference(model: Any) -> Iterator[Callable[[Array], Array]]:
    """Yield a module of equinox, flax or Keras in inference mode, and any other model as it is.

    The caller's model is not changed.
    """
    equinox, nnx, keras = map(sys.modules.get, ("equinox", "flax.nnx", "keras"))
    if equinox and isinstance(model, equinox.Module):
        yield equinox.nn.inference_mode(model)
    elif nnx and isinstance(model, nnx.Module):
        twin = nnx.merge(*nnx.split(model))
        twin.eval()
        yield twin
    elif keras and isinstance(model, keras.Layer):
        from deepdefense_keras.models import open_inference as open_keras

        with open_keras(model) as f:
            yield f
    else:
        yield model
