"""Bounds: the range that perturbed examples must stay in, such as that of pixels."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from einops import rearrange

from deepdefense.errors import InputError
from deepdefense.seam.choosing import framework_of, to_host
from deepdefense.seam.contract import Array, Backend
from deepdefense.seam.validation import check_bounds, to_python_number

__all__ = ["Bounds", "Box", "FrozenArray", "check_within", "freeze_bounds", "make_box"]

Bounds: TypeAlias = tuple[Any, Any]  # (low, high): numbers, or arrays of an example's shape

# An example may lie outside the bounds by this share of their width: that is rounding, no mistake.
BOUNDS_SLACK = 1e-6


@dataclass(frozen=True)
class Box:
    """The points [b d] with low <= x <= high, each [1 d]."""

    backend: Backend
    low: Array
    high: Array

    def clip(self, point: Array) -> Array:
        """Return the nearest point of the box, in any norm: [b d] -> [b d]."""
        return self.backend.xp.clip(point, self.low, self.high)

    def mask_outward_each(self, point: Array, directions: Array) -> Array:
        """Set components that lead out of the box to 0, for directions [b n d] from a point [b d].

        The point lies in the box.
        """
        xp = self.backend.xp
        row = rearrange(point, "b d -> b 1 d")
        at_high = row >= rearrange(self.high, "b d -> b 1 d")
        at_low = row <= rearrange(self.low, "b d -> b 1 d")
        outward = (directions > 0) & at_high | (directions < 0) & at_low
        return xp.where(outward, xp.zeros_like(directions), directions)

    def mask_outward(self, point: Array, direction: Array) -> Array:
        """Do the same for one direction from each point: [b d], [b d] -> [b d]."""
        return self.mask_outward_each(point, rearrange(direction, "b d -> b 1 d"))[:, 0]


class FrozenArray(NamedTuple):
    """An immutable, hashable copy of an array, for settings that are compared and written down.

    >>> FrozenArray.of(np.zeros((2, 3))) == FrozenArray.of(np.zeros((2, 3)))
    True
    """

    shape: tuple[int, ...]
    dtype: str
    content: bytes

    @classmethod
    def of(cls, array: Any) -> FrozenArray:
        """Copy an array of any framework."""
        host = np.ascontiguousarray(to_host(array))
        return cls(host.shape, host.dtype.str, host.tobytes())

    @property
    def array(self) -> np.ndarray:
        """A writable NumPy copy: frameworks warn of read-only arrays."""
        return np.frombuffer(self.content, self.dtype).reshape(self.shape).copy()

    def __repr__(self) -> str:
        low, high = (f"{bound(self.array):g}" for bound in (np.min, np.max))
        digest = hashlib.sha256(self.content).hexdigest()[:16]
        return f"array {list(self.shape)} from {low} to {high}, {digest}"


def freeze_bounds(bounds: Any) -> Bounds | None:
    """Check bounds, and return them as values that a frozen dataclass can hold."""
    check_bounds(bounds)
    if bounds is None:
        return None
    low, high = (
        bound if isinstance(bound, int | float | FrozenArray) else FrozenArray.of(bound)
        for bound in map(to_python_number, bounds)
    )
    if not np.all(_unfreeze(low) < _unfreeze(high)):
        raise InputError(f"bounds must be a pair (low, high) with low < high, got {low}, {high}")
    return low, high


def _unfreeze(bound: Any) -> Any:
    return bound.array if isinstance(bound, FrozenArray) else bound


def make_box(
    backend: Backend, x: Array, bounds: Bounds | None, *, check_examples: bool = True
) -> Box | None:
    """Make the box of the flattened examples x [b ...], or return None without bounds.

    Raises:
        InputError: the bounds are no pair with low < high, or do not fit the shape of the examples;
            with `check_examples`, also if concrete examples lie outside.
    """
    if bounds is None:
        return None
    check_bounds(bounds)
    low, high = (_flatten_bound(backend, x, bound) for bound in bounds)
    is_concrete = backend.is_concrete
    if check_examples and is_concrete(x) and is_concrete(low) and is_concrete(high):
        flat = backend.xp.reshape(x, (-1, low.shape[1]))
        check_within(*map(backend.to_numpy, (flat, low, high)))
    return Box(backend, low, high)


def _flatten_bound(backend: Backend, x: Array, bound: Any) -> Array:
    """Return a bound for each value of an example: [1 d]."""
    xp, shape = backend.xp, tuple(x.shape[1:])
    row: Array = _unfreeze(bound)
    # Bounds may be NumPy arrays in any framework. Dynamo cannot ask a number for its framework.
    if not isinstance(row, int | float) and framework_of(row) == "numpy":
        row = backend.asarray(row, x)
    if bound_shape := tuple(getattr(row, "shape", ())):
        row = xp.reshape(row, (1, *_fit_shape(bound_shape, shape)))
    return xp.reshape(xp.zeros_like(x[:1]) + row, (-1, math.prod(shape)))


def _fit_shape(bound: tuple[int, ...], example: tuple[int, ...]) -> tuple[int, ...]:
    """Return the shape in which an array of bounds broadcasts against an example."""
    if math.prod(bound) == math.prod(example):
        return example
    if len(bound) == len(example) and all(a in (1, b) for a, b in zip(bound, example, strict=True)):
        return bound
    raise InputError(
        "bounds that are arrays must have the shape of an example, or 1 in places of it: "
        f"{list(example)}, got {list(bound)}"
    )


def check_within(x: np.ndarray, low: np.ndarray, high: np.ndarray) -> None:
    """Raise `InputError` unless low < high and the examples lie between them, but for rounding."""
    if not (low < high).all():
        raise InputError("bounds must be a pair (low, high) with low < high everywhere")
    width = np.max(high - low, initial=0)
    finite = np.where(np.isfinite(x), x, np.clip(0, low, high))
    # An infinite width says nothing about the unit of the data, so the data themselves set it.
    slack = BOUNDS_SLACK * (width if np.isfinite(width) else np.abs(finite).max(initial=0))
    if ((finite < low - slack) | (finite > high + slack)).any():
        raise InputError(
            f"examples must lie within the bounds, {low.min():g} to {high.max():g}; they run from "
            f"{finite.min():g} to {finite.max():g}: give the bounds in the units of x, or none"
        )
