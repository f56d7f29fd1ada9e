"""Keras models, on whichever backend Keras runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import keras

from deepdefense.errors import InputError

__all__ = ["layers", "open_inference"]


def layers(model: keras.Layer) -> list[keras.Layer]:
    """The model and every layer in it, at any depth."""
    found, queue = {id(model): model}, [model]
    while queue:
        for layer in vars(queue.pop())["_layers"]:
            if id(layer) not in found:
                found[id(layer)] = layer
                queue.append(layer)
    return list(found.values())


@contextmanager
def open_inference(model: keras.Layer) -> Iterator[Callable[[Any], Any]]:
    """The model as it predicts: dropout and statistics at rest, in the dtype of its variables.

    A mixed precision policy computes in 16 bits, too coarse for the distance to a boundary. What a
    call would assign (seeds, counters, metrics) or add to `losses` is dropped.
    """
    if not model.built:
        raise InputError(
            f"the Keras model {model.name!r} has no weights yet: call it on a batch first"
        )
    values = [(v, keras.ops.convert_to_tensor(v.value)) for v in model.variables]

    def forward(x: Any) -> Any:
        with keras.StatelessScope(state_mapping=values):
            return model(x, training=False)

    with ExitStack() as stack:
        for layer in layers(model):
            stack.callback(_refill, layer._losses, list(layer._losses))  # a call empties them
            for holder, name, value in _unmixed(layer, model.variable_dtype):
                stack.callback(vars(holder).update, {name: vars(holder)[name]})
                vars(holder)[name] = value
        yield forward


def _refill(losses: list[Any], kept: list[Any]) -> None:
    losses[:] = kept


def _unmixed(layer: keras.Layer, dtype: str) -> list[tuple[Any, str, Any]]:
    """Which attributes to set, so that the layer neither computes nor takes inputs in 16 bits.

    Not through the property `dtype_policy`: it may quantise, and cannot undo a policy of a map.
    """
    if isinstance(layer, keras.layers.InputLayer):  # Sequential gives its own the compute dtype
        coarse = layer.dtype in ("float16", "bfloat16")
        return [(holder, "_dtype", dtype) for holder in (layer, layer.output) if coarse]
    if layer.quantization_mode is not None or layer.compute_dtype == layer.variable_dtype:
        return []
    return [(layer, "_dtype_policy", keras.DTypePolicy(layer.variable_dtype))]
