"""The range that perturbed examples must stay in, such as that of pixels."""

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


# How far out of the range an example may lie, as a share of its width: rounding, and not a mistake.
SLACK = 1e-6


@dataclass(frozen=True)
class Box:
    """The points [b d] with low <= x <= high, each [1 d]."""

    backend: Backend
    low: Array
    high: Array

    def clip(self, point: Array) -> Array:
        """The nearest point of the box, in any norm: [b d] -> [b d]."""
        return self.backend.xp.clip(point, self.low, self.high)

    def mask_outward_each(self, point: Array, directions: Array) -> Array:
        """Directions [b n d] from a point of the box, [b d], without what leads out of it."""
        xp = self.backend.xp
        flat = rearrange(point, "b d -> b 1 d")
        above = flat >= rearrange(self.high, "b d -> b 1 d")
        below = flat <= rearrange(self.low, "b d -> b 1 d")
        shut = (directions > 0) & above | (directions < 0) & below
        return xp.where(shut, xp.zeros_like(directions), directions)

    def mask_outward(self, point: Array, direction: Array) -> Array:
        """The same of one direction for each point: [b d], [b d] -> [b d]."""
        return self.mask_outward_each(point, rearrange(direction, "b d -> b 1 d"))[:, 0]


class FrozenArray(NamedTuple):
    """An array that a setting can hold: settings are compared, hashed and written down.

    >>> FrozenArray.of(np.zeros((2, 3))) == FrozenArray.of(np.zeros((2, 3)))
    True
    """

    shape: tuple[int, ...]
    dtype: str
    content: bytes

    @classmethod
    def of(cls, array: Any) -> FrozenArray:
        """A copy of any framework's array."""
        host = np.ascontiguousarray(to_host(array))
        return cls(host.shape, host.dtype.str, host.tobytes())

    @property
    def array(self) -> np.ndarray:
        """As NumPy's; a copy, as frameworks want arrays that they could write to."""
        return np.frombuffer(self.content, self.dtype).reshape(self.shape).copy()

    def __repr__(self) -> str:
        low, high = (f"{of(self.array):g}" for of in (np.min, np.max))
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
    """The box of flat examples for given bounds, if there are any, [b ...] -> [1 d] each.

    Raises `InputError` for bounds that are no pair low < high, or do not fit the examples' shape,
    and with `check_examples`, where values are known, for examples that lie outside.
    """
    if bounds is None:
        return None
    check_bounds(bounds)
    low, high = (_row(backend, x, bound) for bound in bounds)
    if (
        check_examples
        and backend.is_concrete(x)
        and backend.is_concrete(low)
        and backend.is_concrete(high)
    ):
        flat = backend.xp.reshape(x, (-1, low.shape[1]))
        check_within(*map(backend.to_numpy, (flat, low, high)))
    return Box(backend, low, high)


def _row(backend: Backend, x: Array, bound: Any) -> Array:
    """A bound for each value of an example: [1 d]."""
    xp, shape = backend.xp, tuple(x.shape[1:])
    row: Array = _unfreeze(bound)
    # Arrays may be NumPy's, whatever the framework. (Dynamo cannot ask that of a number.)
    if not isinstance(row, int | float) and framework_of(row) == "numpy":
        row = backend.asarray(row, x)
    if own := tuple(getattr(row, "shape", ())):
        row = xp.reshape(row, (1, *_fitting(own, shape)))
    return xp.reshape(xp.zeros_like(x[:1]) + row, (-1, math.prod(shape)))


def _fitting(own: tuple[int, ...], shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape in which an array of bounds goes with examples: theirs, or 1 in places of it."""
    if math.prod(own) == math.prod(shape):
        return shape
    if len(own) == len(shape) and all(a in (1, b) for a, b in zip(own, shape, strict=True)):
        return own
    raise InputError(
        "bounds that are arrays must have the shape of an example, or 1 in places of it: "
        f"{list(shape)}, got {list(own)}"
    )


def check_within(x: np.ndarray, low: np.ndarray, high: np.ndarray) -> None:
    """Raises `InputError` unless low < high, and examples lie between them but for rounding."""
    if not (low < high).all():
        raise InputError("bounds must be a pair (low, high) with low < high everywhere")
    width = np.max(high - low, initial=0)
    seen = np.where(np.isfinite(x), x, np.clip(0, low, high))
    # A side that is open says nothing of the unit that the data are in; they do themselves.
    slack = SLACK * (width if np.isfinite(width) else np.abs(seen).max(initial=0))
    if ((seen < low - slack) | (seen > high + slack)).any():
        raise InputError(
            f"examples must lie within the bounds, {low.min():g} to {high.max():g}; they run from "
            f"{seen.min():g} to {seen.max():g}: give the bounds in the units of x, or none"
        )
