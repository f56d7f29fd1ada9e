"""Check that Deep Defense can train on a Keras model, a batch and its labels.

A failed check raises `InputError`.
"""

from __future__ import annotations

import inspect
from typing import Any

import keras
from keras import ops

from deepdefense.errors import InputError

__all__ = ["check_batch", "check_model", "class_indices"]


def check_model(model: Any) -> None:
    """Raise unless `defended` can train the model.

    It must be a Keras model that maps one floating-point input to logits. Its `compute_loss` must
    accept the argument `training`.
    """
    if not isinstance(model, keras.Model):
        raise InputError(f"expected a keras.Model, got {type(model).__name__}")
    for kind in ("inputs", "outputs"):
        if len(getattr(model, kind, None) or [0]) != 1:
            raise InputError(
                f"expected a model of one input and one output, {model.name!r} has "
                f"{len(getattr(model, kind))} {kind}: wrap it in one that has"
            )
    for tensor in getattr(model, "inputs", None) or ():
        if "int" in tensor.dtype or tensor.dtype == "bool":
            raise InputError(
                f"{model.name!r} takes {tensor.dtype} inputs, which no small perturbation can "
                "move: let it take floating numbers, or embedded ones"
            )
    name = _final(model)
    if name in ("softmax", "sigmoid") or any(
        map(_of_probabilities, keras.tree.flatten(model.loss))
    ):
        raise InputError(
            "Deep Defense works on logits, but this model or its loss is of probabilities"
            f"{f' (it ends in a {name})' if name in ('softmax', 'sigmoid') else ''}: make the last "
            "layer linear and compile with a loss with from_logits=True"
        )
    if "training" not in inspect.signature(model.compute_loss).parameters:
        raise InputError(
            f"{type(model).__name__}.compute_loss must take `training`, as Keras's own does, to "
            "tell training from evaluation: add training=True to its arguments"
        )


def _final(layer: Any) -> str:
    """Return the lower-case name of the last operation of a Sequential or functional model.

    This is the last layer's activation, such as softmax, or its class if it has no activation.
    """
    parts = (
        layer.layers if isinstance(layer, keras.Sequential) else getattr(layer, "operations", ())
    )
    if parts:
        return _final(parts[-1])
    activation = getattr(layer, "activation", None)
    return str(getattr(activation, "__name__", type(layer).__name__)).lower()


def _of_probabilities(loss: Any) -> bool:
    """Return whether a loss passed to `compile` expects probabilities (from_logits=False)."""
    if isinstance(loss, str):
        loss = keras.losses.get(loss)
    if isinstance(loss, keras.losses.Loss):
        return loss.get_config().get("from_logits") is False
    if not callable(loss):
        return False
    argument = inspect.signature(loss).parameters.get("from_logits")
    return argument is not None and argument.default is False


def check_batch(x: Any, y: Any, y_pred: Any) -> None:
    """Raise unless examples, labels and logits are one array each, and the logits are [b k]."""
    for name, value in (("examples", x), ("labels", y), ("logits", y_pred)):
        if value is None or keras.tree.is_nested(value):
            raise InputError(f"Deep Defense needs one array of {name}, got {type(value).__name__}")
    if len(y_pred.shape) != 2:
        raise InputError(f"the model must return logits [b k], it returned {list(y_pred.shape)}")


def class_indices(y: Any, classes: int) -> Any:
    """Convert labels [b], [b 1] or one-hot [b k], of any dtype, to int32 class indices [b]."""
    y = ops.convert_to_tensor(y)
    shape = tuple(y.shape)
    if shape[1:] == (1,):
        y = ops.squeeze(y, 1)
    elif shape[1:] == (classes,):
        y = ops.argmax(y, 1)
    elif len(shape) != 1:
        raise InputError(
            f"labels must be class indices [b] or [b 1], or one-hot [b {classes}], "
            f"got shape {list(shape)}"
        )
    return ops.cast(y, "int32")
