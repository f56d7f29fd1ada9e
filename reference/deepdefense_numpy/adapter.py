"""The NumPy backend. It computes every derivative by finite differences.

The tests compare the gradients of the other backends with those of this backend.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt

from deepdefense.seam.contract import Backend, Pull
from deepdefense.seam.validation import check_indices

__all__ = ["BACKEND", "jacobian"]

Array = npt.NDArray[Any]
Forward = Callable[[Array], Array]


def jacobian(f: Forward, x: Array) -> Array:
    """Return df_k / dx_d of each example by fourth-order central differences: [b d] -> [b k d].

    The derivative along each coordinate is

        (8 (f(x + h) - f(x - h)) - (f(x + 2h) - f(x - 2h))) / (12 h).

    The truncation error, of order h^4, and the rounding error, of order eps / h, are about equal at
    h = eps^(1/5), with eps the machine epsilon.
    """
    size = np.abs(np.where(np.isfinite(x), x, 0)).max(1, initial=1.0, keepdims=True)
    h = (float(np.finfo(x.dtype).eps) ** 0.2 * size).astype(x.dtype)

    def difference(step: Array) -> Array:
        return f(x + step) - f(x - step)

    columns = [
        (8 * difference(h * axis) - difference(2 * h * axis)) / (12 * h)
        for axis in np.eye(x.shape[1], dtype=x.dtype)
    ]
    return np.stack(columns, -1)


class _Numpy(Backend):
    """The operations of the contract (`deepdefense.seam.contract.Backend`) in NumPy."""

    name = "numpy"
    xp: Any = np

    def asarray(self, value: Any, like: Forward | Array) -> Array:
        array = np.asarray(value)
        if isinstance(like, np.ndarray) and np.issubdtype(array.dtype, np.floating):
            return array.astype(like.dtype)
        return array

    def to_numpy(self, x: Array) -> Array:
        return np.array(x)

    def is_concrete(self, x: Array) -> bool:
        return True

    def index(self, labels: Any, depth: int, like: Array) -> Array:
        index = np.asarray(labels)
        check_indices(np.issubdtype(index.dtype, np.integer), index.dtype, index, depth)
        return index.astype(np.int64)

    def one_hot(self, index: Array, depth: int, like: Array) -> Array:
        return np.eye(depth, dtype=like.dtype)[index]

    def rank(self, scores: Array, count: int) -> Array:
        return np.argsort(-scores, axis=1, kind="stable")[:, :count]

    def euclidean(self, v: Array) -> Array:
        with np.errstate(over="ignore"):
            norms: Array = super().euclidean(v)
        return norms

    def stop_gradient(self, x: Array) -> Array:
        return x

    @contextmanager
    def inference(self, model: Forward) -> Iterator[Forward]:
        yield model

    def vjp(self, f: Forward, x: Array, *, twice: bool = True) -> tuple[Array, Pull]:
        slopes = jacobian(f, x)
        return f(x), lambda cotangent: np.einsum("bk,bkd->bd", cotangent, slopes)

    def softmax_cross_entropy(self, logits: Array, labels: Array) -> Array:
        shifted = logits - logits.max(1, keepdims=True)
        losses: Array = np.log(np.exp(shifted).sum(1)) - shifted[np.arange(len(labels)), labels]
        return losses


BACKEND = _Numpy()
