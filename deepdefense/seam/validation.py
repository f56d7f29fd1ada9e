"""Checks of settings, shapes and types, most of which look at no values.

Each raises `InputError`, saying what was expected and what came; of probabilities it warns.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import fields
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
    "to_python_numbers",
    "warn_if_probabilities",
]


def has_constant_sum(outputs: np.ndarray) -> bool:
    """Whether the outputs [n k] of a network, two rows or more, are a softmax's, or in proportion.

    >>> has_constant_sum(np.array([[0.3, 0.7], [0.5, 0.5]]))
    True
    """
    sums = outputs.sum(1)
    if len(outputs) < 2 or not (outputs >= 0).all():
        return False
    return bool(sums.mean() > 0 and np.ptp(sums) <= 1e-3 * sums.mean())


def is_softmax(outputs: np.ndarray) -> bool:
    """Whether they are a softmax's itself, whose rows sum to 1.

    >>> is_softmax(np.array([[0.3, 0.7], [0.5, 0.5]])), is_softmax(np.array([[3, 7], [5, 5]]))
    (True, False)
    """
    within = ((outputs >= 0) & (outputs <= 1.001)).all()  # so that nothing overflows in a sum
    return bool(within and has_constant_sum(outputs) and np.allclose(outputs.sum(1), 1, atol=1e-3))


def warn_if_probabilities(backend: Backend, outputs: Array) -> None:
    """Warn of outputs [b k] that are a softmax's, where values are known."""
    if backend.is_concrete(outputs) and is_softmax(backend.to_numpy(outputs)):
        warnings.warn(
            "the model returned probabilities (no output is negative, and they sum to 1), of which "
            "distances to a boundary are other ones: leave the softmax out, so that it returns "
            "logits",
            ProbabilityWarning,
            stacklevel=2,
        )


def to_python_number(value: Any) -> Any:
    """NumPy's scalar as Python's number, which compilers and JSON take; else the value.

    >>> to_python_number(np.float32(0.5))
    0.5
    """
    return value.item() if isinstance(value, np.number) else value


def to_python_numbers(settings: Any) -> None:
    """The same for every field of a frozen dataclass, while it comes to be."""
    for field in fields(settings):
        object.__setattr__(settings, field.name, to_python_number(getattr(settings, field.name)))


def check_order(p: Any) -> float:
    """The order p of a norm, as a float from 1 to inf."""
    p = to_python_number(p)
    if isinstance(p, bool) or not isinstance(p, (int, float)) or not p >= 1:
        raise InputError(f"p must be a number from 1 to inf, got {p!r}")
    return float(p)


def check_count(name: str, value: Any, *, least: int) -> int:
    """A whole number, at least `least`."""
    value = to_python_number(value)
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise InputError(f"{name} must be a whole number, {least} or more, got {value!r}")
    return value


def check_flag(name: str, value: Any) -> None:
    """True or False."""
    if not isinstance(value, bool):
        raise InputError(f"{name} must be True or False, got {value!r}")


def check_number(name: str, value: Any, *, least: float, below: float = math.inf) -> float:
    """A finite number with least <= value < below."""
    value = to_python_number(value)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise InputError(f"{name} must be a number, got {value!r}")
    if not least <= value < below:
        limit = "" if below == math.inf else f" and less than {below:g}"
        raise InputError(f"{name} must be finite, {least:g} or more{limit}, got {value!r}")
    return value


def check_kind(name: str, value: Any, kind: type) -> None:
    """An object of that class, or None."""
    if value is not None and not isinstance(value, kind):
        raise InputError(f"{name} must be of the class {kind.__name__}, got {value!r}")


def check_pair(name: str, value: Any) -> tuple[Any, Any]:
    """Examples and their labels."""
    if isinstance(value, Sequence) and len(value) == 2:
        return value[0], value[1]
    raise InputError(
        f"{name} must be a pair (x, y) of arrays, examples [n ...] and labels [n], "
        f"got {type(value).__name__}: of what loads batches, join them into two arrays"
    )


def check_choice(name: str, value: Any, choices: Sequence[str]) -> None:
    """One of the named choices."""
    if value not in choices:
        raise InputError(f"{name} must be one of {', '.join(choices)}, got {value!r}")


def check_bounds(bounds: Any) -> None:
    """A pair (low, high) of numbers with low < high, or of which some are arrays; or None."""
    if bounds is None:
        return
    if not isinstance(bounds, Sequence) or len(bounds) != 2:
        raise InputError(f"bounds must be a pair (low, high) with low < high, got {bounds!r}")
    if any(hasattr(bound, "shape") for bound in bounds):
        return
    if not bounds[0] < bounds[1]:
        raise InputError(f"bounds must be a pair (low, high) with low < high, got {bounds!r}")


def find_device(device: str, of: Callable[[str], Sequence[Any]]) -> Any:
    """The device of a name such as gpu or gpu:1, of those that a framework has of each kind."""
    kind, _, number = device.partition(":")
    try:
        found = of(kind)
    except RuntimeError:  # JAX's, of a kind that it has not
        found = ()
    if not (number or "0").isdecimal() or int(number or 0) >= len(found):
        raise InputError(
            f"device must be a kind and perhaps a number, such as cpu or gpu:1, got {device!r}; "
            f"of {kind!r} there are {len(found)} here"
        )
    return found[int(number or 0)]


def _agree(size: int | None, other: int | None) -> bool:
    """Whether two sizes are equal, as far as is known: a graph's batch may have any size."""
    return size is None or other is None or size == other


def check_labels(y: Any, x: Array) -> None:
    """One class index per example."""
    shape = tuple(y.shape) if hasattr(y, "shape") else (len(y),)
    if len(shape) != 1 or not _agree(shape[0], x.shape[0]):
        raise InputError(
            f"labels must be class indices [b] with b = {x.shape[0]} examples, got shape {shape}"
        )


def check_indices(integer: bool, dtype: Any, known: Any, depth: int) -> None:
    """Class indices in [0, depth): by their type, and by their values [b] unless those are None.

    For a backend's `index`, which alone knows its types and when values are at hand.
    """
    if not integer:
        raise InputError(f"labels must be integers, got {dtype}")
    if known is not None and known.size and not (known.min() >= 0 and known.max() < depth):
        raise InputError(
            f"labels must lie in 0..{depth - 1} for {depth} logits, "
            f"got {known.min()}..{known.max()}"
        )


def call_model(f: Callable[[Array], Array], x: Array) -> Array:
    """What a network returns for a batch, an array; where it fails, an error of one line."""
    try:
        found = f(x)
    except InputError:
        raise
    except Exception as error:  # whatever a framework raises for shapes or types that do not fit
        kind = getattr(x.dtype, "name", x.dtype)
        raise InputError(
            f"the network does not take examples of shape {list(x.shape[1:])} and type {kind}, "
            f"or has an error of its own ({type(error).__name__}): {flatten_message(error)}"
        ) from error
    _check_returned(found, x)
    return found


def _check_returned(value: Any, x: Array) -> None:
    """An array, alone, of the framework of the batch that the model was called on."""
    found, expected = framework_of(value), framework_of(x)
    if found is None:
        raise InputError(
            "the model must return its logits [b k] and nothing else, it returned "
            f"{type(value).__name__}: wrap it in one that picks them out, say output.logits"
        )
    if found != expected:
        raise InputError(
            f"the examples are of {expected}, but the model returned logits of {found}: "
            "convert the examples first"
        )


def check_logits(logits: Any, x: Array) -> None:
    """Logits [b k] of two classes or more for a batch of b, of the framework of the batch."""
    _check_returned(logits, x)
    shape = tuple(logits.shape)
    if len(shape) != 2 or not _agree(shape[0], x.shape[0]):
        raise InputError(
            f"the model must map a batch of {x.shape[0]} to logits [{x.shape[0]} k], "
            f"it returned shape {list(shape)}"
        )
    if shape[1] < 2:
        raise InputError(
            "the model must return a logit for each of two classes or more, it returned one; "
            "for a single-logit model use the logits (0, logit)"
        )
