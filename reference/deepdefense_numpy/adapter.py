"""NumPy behind the seam, every derivative a finite difference: slow, and hard to get wrong.

It needs no access to a model's insides, so it also judges the other backends' gradients.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from deepdefense.errors import InputError
from deepdefense.seam.contract import Fold
from deepdefense.seam.validation import check_indices

__all__ = ["BACKEND", "jacobian"]

Array = npt.NDArray[Any]
State = TypeVar("State", bound=NamedTuple)
Fixed = TypeVar("Fixed", bound=NamedTuple)
Forward = Callable[[Array], Array]


def jacobian(f: Forward, x: Array) -> Array:
    """df_k / dx_d of each example by central differences of fourth order: [b d] -> [b k d].

    (8 (f(x + h) - f(x - h)) - (f(x + 2h) - f(x - 2h))) / 12h. Truncation, h^4, and rounding,
    eps / h, balance near h = eps^(1/5): about 1e-3 in float64, for an error of some 1e-12.
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


class _Numpy:
    name = "numpy"
    xp: Any = np

    def asarray(self, value: Any, like: Forward | Array) -> Array:
        placed = np.asarray(value)
        if isinstance(like, np.ndarray) and np.issubdtype(placed.dtype, np.floating):
            return placed.astype(like.dtype)
        return placed

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

    def take(self, values: Array, index: Array) -> Array:
        return values[np.arange(len(index)), index]

    def rank(self, scores: Array, count: int) -> Array:
        return np.argsort(-scores, axis=1, kind="stable")[:, :count]

    def euclidean(self, v: Array) -> Array:
        with np.errstate(over="ignore"):
            norms: Array = np.linalg.norm(v, axis=-1)
        return norms

    def epsilon(self, x: Array) -> float:
        if x.dtype not in (np.float32, np.float64):
            raise InputError(f"examples must be float32 or float64, got {x.dtype}")
        return float(np.finfo(x.dtype).eps)

    def stop_gradient(self, x: Array) -> Array:
        return x

    def precise(self) -> AbstractContextManager[None]:
        return nullcontext()

    def forward(self, f: Forward, x: Array) -> Array:
        return f(x)

    @contextmanager
    def inference(self, model: Forward) -> Iterator[Forward]:
        yield model

    def compiled(self, f: Forward) -> Forward:
        return f

    def class_gradients(self, f: Forward, x: Array) -> tuple[Array, Fold]:
        slopes = jacobian(f, x)

        def fold(step: Callable[..., Any], state: Any, contrasts: Array) -> Any:
            return step(state, contrasts, np.einsum("bnk,bkd->bnd", contrasts, slopes))

        return f(x), fold

    def vjp(
        self, f: Forward, x: Array, *, twice: bool = True
    ) -> tuple[Array, Callable[[Array], Array]]:
        slopes = jacobian(f, x)
        return f(x), lambda cotangent: np.einsum("bk,bkd->bd", cotangent, slopes)

    def iterate(
        self,
        body: Callable[[State, Fixed], tuple[State, Array]],
        state: State,
        fixed: Fixed,
        active: Array,
        *,
        steps: int,
        differentiable: bool = False,
    ) -> State:
        for _ in range(steps):
            if not active.any():
                break
            new, going = body(state, fixed)
            state = state._make(
                np.where(np.reshape(active, (-1,) + (1,) * (a.ndim - 1)), b, a)
                for a, b in zip(state, new, strict=True)
            )
            active = active & going
        return state

    def softmax_cross_entropy(self, logits: Array, labels: Array) -> Array:
        shifted = logits - logits.max(1, keepdims=True)
        losses: Array = np.log(np.exp(shifted).sum(1)) - shifted[np.arange(len(labels)), labels]
        return losses


BACKEND = _Numpy()
