"""The models that JAX knows: functions and pytrees of parameters; nothing is imported for them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

__all__ = ["dtype_of", "inferring", "is_parameter"]


def is_parameter(leaf: Any) -> bool:
    """Whether a leaf of a model that is a pytree can be trained: an inexact array."""
    return isinstance(leaf, jax.Array) and bool(jnp.issubdtype(leaf.dtype, jnp.inexact))


def dtype_of(model: Any) -> Any:
    """The dtype of an array or a model's first parameter; None for a function, which shows none."""
    keras = sys.modules.get("keras")
    if keras and isinstance(model, keras.Layer):
        return jnp.dtype(model.variable_dtype)
    first = next(filter(is_parameter, jax.tree_util.tree_leaves(model)), None)
    return None if first is None else first.dtype


@contextmanager
def inferring(model: Any) -> Iterator[Callable[[Array], Array]]:
    """The model in inference mode, where its library has modes; a function stays as it is."""
    equinox, nnx, keras = map(sys.modules.get, ("equinox", "flax.nnx", "keras"))
    if equinox and isinstance(model, equinox.Module):
        yield equinox.nn.inference_mode(model)
    elif nnx and isinstance(model, nnx.Module):
        twin = nnx.merge(*nnx.split(model))
        twin.eval()
        yield twin
    elif keras and isinstance(model, keras.Layer):
        from deepdefense_keras.models import inferring as keras_inferring

        with keras_inferring(model) as f:
            yield f
    else:
        yield model
