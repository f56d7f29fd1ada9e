"""Open Keras models in inference mode, on any backend of Keras."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import keras

from deepdefense.errors import InputError

__all__ = ["all_layers", "open_inference"]


def all_layers(model: keras.Layer) -> list[keras.Layer]:
    """Return the model and all its layers, including the layers inside layers."""
    layers, queue = {id(model): model}, [model]
    while queue:
        for layer in vars(queue.pop())["_layers"]:
            if id(layer) not in layers:
                layers[id(layer)] = layer
                queue.append(layer)
    return list(layers.values())


@contextmanager
def open_inference(model: keras.Layer) -> Iterator[Callable[[Any], Any]]:
    """Yield the model as a function in inference mode, which computes in the variables' dtype.

    Under a mixed precision policy the model would compute in 16 bits, which is too inaccurate for
    distances to decision boundaries. The function changes no variables, and `model.losses` is
    restored on exit.
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
        for layer in all_layers(model):
            # A call of the model clears the list `_losses`, so restore the list on exit.
            stack.callback(_restore, layer._losses, list(layer._losses))
            for holder, name, value in _full_precision(layer, model.variable_dtype):
                stack.callback(vars(holder).update, {name: vars(holder)[name]})
                vars(holder)[name] = value
        yield forward


def _restore(losses: list[Any], kept: list[Any]) -> None:
    losses[:] = kept


def _full_precision(layer: keras.Layer, dtype: str) -> list[tuple[Any, str, Any]]:
    """Return triples (object, attribute, value) to set so that a layer avoids 16 bits.

    The attributes are private, because setting the public `dtype_policy` may quantise the layer.
    """
    if isinstance(layer, keras.layers.InputLayer):
        # A Sequential model's input layer has the policy's compute dtype, which may have 16 bits.
        coarse = layer.dtype in ("float16", "bfloat16")
        return [(holder, "_dtype", dtype) for holder in (layer, layer.output) if coarse]
    if layer.quantization_mode is not None or layer.compute_dtype == layer.variable_dtype:
        return []
    return [(layer, "_dtype_policy", keras.DTypePolicy(layer.variable_dtype))]
