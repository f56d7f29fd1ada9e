"""Check arguments: settings, shapes and types of arrays, labels, and the outputs of models.

A failed check raises `InputError` with a message that says what was expected and what was passed.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from deepdefense.errors import InputError, ProbabilityWarning, flatten_message
from deepdefense.seam.choosing import framework_of
from deepdefense.seam.contract import Array, Backend

__all__ = [
    "call_model",
    "check_bounds",
    "check_choice",
    "check_count",
    "check_flag",
    "check_indices",
    "check_kind",
    "check_labels",
    "check_logits",
    "check_number",
    "check_order",
    "check_pair",
    "find_device",
    "has_constant_sum",
    "is_softmax",
    "to_python_number",
    "warn_if_probabilities",
]


def has_constant_sum(outputs: np.ndarray) -> bool:
    """Return whether outputs [n k] are nonnegative and all rows have the same sum.

    Such outputs are probabilities, up to a constant factor. For a single row (n = 1), return False.

    >>> has_constant_sum(np.array([[0.3, 0.7], [0.5, 0.5]]))
    True
    """
    sums = outputs.sum(1)
    if len(outputs) < 2 or not (outputs >= 0).all():
        return False
    return bool(sums.mean() > 0 and np.ptp(sums) <= 1e-3 * sums.mean())


def is_softmax(outputs: np.ndarray) -> bool:
    """Return whether the rows of outputs [n k] are probabilities: nonnegative, with sum 1.

    For a single row (n = 1), return False.

    >>> is_softmax(np.array([[0.3, 0.7], [0.5, 0.5]])), is_softmax(np.array([[3, 7], [5, 5]]))
    (True, False)
    """
    in_range = ((outputs >= 0) & (outputs <= 1.001)).all()  # sums of larger outputs might overflow
    return bool(
        in_range and has_constant_sum(outputs) and np.allclose(outputs.sum(1), 1, atol=1e-3)
    )


def warn_if_probabilities(backend: Backend, outputs: Array) -> None:
    """Warn if a model's outputs [b k] are probabilities.

    Outputs that a compiler traces have no values and cause no warning.
    """
    if backend.is_concrete(outputs) and is_softmax(backend.to_numpy(outputs)):
        warnings.warn(
            "the model returned probabilities (no output is negative, and they sum to 1), of which "
            "distances to a boundary are other ones: leave the softmax out, so that it returns "
            "logits",
            ProbabilityWarning,
            stacklevel=2,
        )


def to_python_number(value: Any) -> Any:
    """Convert a NumPy scalar to a Python number; return any other value unchanged.

    Compilers and JSON accept Python numbers, but not NumPy scalars.

    >>> to_python_number(np.float32(0.5))
    0.5
    """
    return value.item() if isinstance(value, np.number) else value


def check_order(p: Any) -> float:
    """Return the order p of a norm as a float; raise unless it is a number from 1 to inf."""
    p = to_python_number(p)
    if isinstance(p, bool) or not isinstance(p, (int, float)) or not p >= 1:
        raise InputError(f"p must be a number from 1 to inf, got {p!r}")
    return float(p)


def check_count(name: str, value: Any, *, least: int) -> int:
    """Return the value as an int; raise unless it is a whole number of at least `least`."""
    value = to_python_number(value)
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise InputError(f"{name} must be a whole number, {least} or more, got {value!r}")
    return value


def check_flag(name: str, value: Any) -> None:
    """Raise unless the value is True or False."""
    if not isinstance(value, bool):
        raise InputError(f"{name} must be True or False, got {value!r}")


def check_number(name: str, value: Any, *, least: float, below: float = math.inf) -> float:
    """Return the value as a Python number; raise unless least <= value < below."""
    value = to_python_number(value)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise InputError(f"{name} must be a number, got {value!r}")
    if not least <= value < below:
        limit = "" if below == math.inf else f" and less than {below:g}"
        raise InputError(f"{name} must be finite, {least:g} or more{limit}, got {value!r}")
    return value


def check_kind(name: str, value: Any, kind: type) -> None:
    """Raise unless the value is None or an instance of the class `kind`."""
    if value is not None and not isinstance(value, kind):
        raise InputError(f"{name} must be of the class {kind.__name__}, got {value!r}")


def check_pair(name: str, value: Any) -> tuple[Any, Any]:
    """Return the two items of a pair (examples, labels); raise unless the value is a pair."""
    if isinstance(value, Sequence) and len(value) == 2:
        return value[0], value[1]
    raise InputError(
        f"{name} must be a pair (x, y) of arrays, examples [n ...] and labels [n], "
        f"got {type(value).__name__}: of what loads batches, join them into two arrays"
    )


def check_choice(name: str, value: Any, choices: Sequence[str]) -> None:
    """Raise unless the value is one of the choices."""
    if value not in choices:
        raise InputError(f"{name} must be one of {', '.join(choices)}, got {value!r}")


def check_bounds(bounds: Any) -> None:
    """Raise unless bounds are None or a pair (low, high).

    If low and high are numbers, low < high must hold. If either is an array, they are not compared.
    """
    if bounds is None:
        return
    if not isinstance(bounds, Sequence) or len(bounds) != 2:
        raise InputError(f"bounds must be a pair (low, high) with low < high, got {bounds!r}")
    if any(hasattr(bound, "shape") for bound in bounds):
        return
    if not bounds[0] < bounds[1]:
        raise InputError(f"bounds must be a pair (low, high) with low < high, got {bounds!r}")


def find_device(device: str, list_devices: Callable[[str], Sequence[Any]]) -> Any:
    """Return the framework's device object for a name such as gpu or gpu:1.

    `list_devices` returns all devices of a kind, such as gpu.
    """
    kind, _, number = device.partition(":")
    devices = list_devices(kind)
    if not (number or "0").isdecimal() or int(number or 0) >= len(devices):
        raise InputError(
            f"device must be a kind and perhaps a number, such as cpu or gpu:1, got {device!r}; "
            f"of {kind!r} there are {len(devices)} here"
        )
    return devices[int(number or 0)]


def _may_be_equal(size: int | None, other: int | None) -> bool:
    """Return whether two batch sizes may be equal. None is a size unknown to a traced graph."""
    return size is None or other is None or size == other


def check_labels(y: Any, x: Array) -> None:
    """Raise unless there is one label per example."""
    if y is None:
        raise InputError(
            f"labels are needed: class indices [b] with b = {x.shape[0]} examples, got None"
        )
    shape = tuple(y.shape) if hasattr(y, "shape") else (len(y),)
    if len(shape) != 1 or not _may_be_equal(shape[0], x.shape[0]):
        raise InputError(
            f"labels must be class indices [b] with b = {x.shape[0]} examples, got shape {shape}"
        )


def check_indices(is_integer: bool, dtype: Any, values: np.ndarray | None, depth: int) -> None:
    """Raise unless the labels' dtype is an integer type and their values are in [0, depth).

    `Backend.index` calls this function. `is_integer` says whether `dtype` is an integer type.
    `values` are the values of the labels [b], or None if a compiler traces the labels.
    """
    if not is_integer:
        raise InputError(f"labels must be integers, got {dtype}")
    if values is not None and values.size and not (values.min() >= 0 and values.max() < depth):
        raise InputError(
            f"labels must lie in 0..{depth - 1} for {depth} logits, "
            f"got {values.min()}..{values.max()}"
        )


def call_model(f: Callable[[Array], Array], x: Array) -> Array:
    """Return the outputs of a network for a batch.

    Raises `InputError` if the network fails or does not return one array of the batch's framework.
    """
    try:
        outputs = f(x)
    except InputError:
        raise
    except Exception as error:  # frameworks raise various exceptions for wrong shapes and dtypes
        kind = getattr(x.dtype, "name", x.dtype)
        raise InputError(
            f"the network does not take examples of shape {list(x.shape[1:])} and type {kind}, "
            f"or has an error of its own ({type(error).__name__}): {flatten_message(error)}"
        ) from error
    _check_framework(outputs, x)
    return outputs


def _check_framework(value: Any, x: Array) -> None:
    """Raise unless `value`, which a model returned for `x`, is one array of x's framework."""
    actual, expected = framework_of(value), framework_of(x)
    if actual is None:
        raise InputError(
            "the model must return its logits [b k] and nothing else, it returned "
            f"{type(value).__name__}: wrap it in one that picks them out, say output.logits"
        )
    if actual != expected:
        raise InputError(
            f"the examples are of {expected}, but the model returned logits of {actual}: "
            "convert the examples first"
        )


def check_logits(logits: Any, x: Array) -> None:
    """Raise unless the model returned logits [b k], k > 1, for a batch of b examples."""
    _check_framework(logits, x)
    shape = tuple(logits.shape)
    if len(shape) != 2 or not _may_be_equal(shape[0], x.shape[0]):
        raise InputError(
            f"the model must map a batch of {x.shape[0]} to logits [{x.shape[0]} k], "
            f"it returned shape {list(shape)}"
        )
    if shape[1] < 2:
        raise InputError(
            "the model must return a logit for each of two classes or more, it returned one; "
            "for a single-logit model use the logits (0, logit)"
        )
