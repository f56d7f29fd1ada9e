"""The range in which perturbed examples must stay, such as the range of pixel values."""

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

# How far an example may lie outside the bounds, as a share of the width of the bounds. This slack
# admits examples that only rounding has moved outside.
BOUNDS_SLACK = 1e-6


@dataclass(frozen=True)
class Box:
    """The bounds of flat examples, which `make_box` makes from the bounds that the user gives.

    A flat example x lies in the box if low <= x <= high in every coordinate.
    """

    backend: Backend
    low: Array  # [1 d]
    high: Array  # [1 d]

    def clip(self, point: Array) -> Array:
        """Return the point of the box nearest to `point` in every p-norm: [b d] -> [b d]."""
        return self.backend.xp.clip(point, self.low, self.high)

    def mask_outward_each(self, point: Array, directions: Array) -> Array:
        """Return `directions` [b n d], with 0 for each component that leads out of the box.

        The directions start at `point` [b d], which lies in the box. A component leads out of the
        box if the point's coordinate is at a bound and the component points beyond that bound.
        """
        xp = self.backend.xp
        row = rearrange(point, "b d -> b 1 d")
        at_high = row >= rearrange(self.high, "b d -> b 1 d")
        at_low = row <= rearrange(self.low, "b d -> b 1 d")
        outward = (directions > 0) & at_high | (directions < 0) & at_low
        return xp.where(outward, xp.zeros_like(directions), directions)

    def mask_outward(self, point: Array, direction: Array) -> Array:
        """Apply `mask_outward_each` with one direction per point: [b d], [b d] -> [b d]."""
        return self.mask_outward_each(point, rearrange(direction, "b d -> b 1 d"))[:, 0]


class FrozenArray(NamedTuple):
    """An immutable, hashable copy of an array, made by `freeze_bounds`.

    Settings hold bounds in this form, so that they can be compared, hashed and written to reports.

    >>> FrozenArray.of(np.zeros((2, 3))) == FrozenArray.of(np.zeros((2, 3)))
    True
    """

    shape: tuple[int, ...]
    dtype: str
    content: bytes

    @classmethod
    def of(cls, array: Any) -> FrozenArray:
        """Copy `array`, which may belong to any framework, into a `FrozenArray`."""
        host = np.ascontiguousarray(to_host(array))
        return cls(host.shape, host.dtype.str, host.tobytes())

    @property
    def array(self) -> np.ndarray:
        """A NumPy copy of the array, writable because frameworks warn about read-only arrays."""
        return np.frombuffer(self.content, self.dtype).reshape(self.shape).copy()

    def __repr__(self) -> str:
        low, high = (f"{bound(self.array):g}" for bound in (np.min, np.max))
        digest = hashlib.sha256(self.content).hexdigest()[:16]
        return f"array {list(self.shape)} from {low} to {high}, {digest}"


def freeze_bounds(bounds: Any) -> Bounds | None:
    """Check the bounds, and return them with each array replaced by a `FrozenArray`.

    Without bounds (None), return None.

    Raises:
        InputError: the bounds are not a pair with low < high.
    """
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
    """Return the array of a `FrozenArray`; return any other bound unchanged."""
    return bound.array if isinstance(bound, FrozenArray) else bound


def make_box(
    backend: Backend, x: Array, bounds: Bounds | None, *, check_examples: bool = True
) -> Box | None:
    """Return the bounds of the examples x [b ...] as a `Box`, or None if `bounds` is None.

    Raises:
        InputError: the bounds are not a pair with low < high, or their shape does not fit the shape
            of the examples. With `check_examples`, also if concrete values of an example are
            outside the bounds.
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
    """Return one bound, low or high, as an array with one value per coordinate: [1 d]."""
    xp, shape = backend.xp, tuple(x.shape[1:])
    row: Array = _unfreeze(bound)
    # Bounds may be NumPy arrays whatever the framework of x. Numbers are excluded first, because
    # PyTorch's compiler cannot trace `framework_of` for a number.
    if not isinstance(row, int | float) and framework_of(row) == "numpy":
        row = backend.asarray(row, x)
    if bound_shape := tuple(getattr(row, "shape", ())):
        row = xp.reshape(row, (1, *_fit_shape(bound_shape, shape)))
    return xp.reshape(xp.zeros_like(x[:1]) + row, (-1, math.prod(shape)))


def _fit_shape(bound: tuple[int, ...], example: tuple[int, ...]) -> tuple[int, ...]:
    """Return the shape to which a bound must be reshaped to broadcast against an example.

    `bound` and `example` are the current shapes of the two arrays.
    """
    if math.prod(bound) == math.prod(example):
        return example
    if len(bound) == len(example) and all(a in (1, b) for a, b in zip(bound, example, strict=True)):
        return bound
    raise InputError(
        "bounds that are arrays must have the shape of an example, or 1 in places of it: "
        f"{list(example)}, got {list(bound)}"
    )


def check_within(x: np.ndarray, low: np.ndarray, high: np.ndarray) -> None:
    """Raise `InputError` unless low < high and low <= x <= high, up to rounding.

    Values of x that are not finite are not compared with the bounds.
    """
    if not (low < high).all():
        raise InputError("bounds must be a pair (low, high) with low < high everywhere")
    width = np.max(high - low, initial=0)
    finite = np.where(np.isfinite(x), x, np.clip(0, low, high))
    # The slack is a share of the width of the bounds. Infinite bounds have no finite width, so use
    # the largest absolute value of x instead.
    slack = BOUNDS_SLACK * (width if np.isfinite(width) else np.abs(finite).max(initial=0))
    if ((finite < low - slack) | (finite > high + slack)).any():
        raise InputError(
            f"examples must lie within the bounds, {low.min():g} to {high.max():g}; they run from "
            f"{finite.min():g} to {finite.max():g}: give the bounds in the units of x, or none"
        )
