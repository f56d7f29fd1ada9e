"""JAX behind the seam: no algorithm, only how JAX spells each operation.

A model is any function closed over its parameters, which are reached by tracing. Outside of a
transformation loops are Python's and end early; inside of one they are `lax` loops.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, TypeVar

import jax
import jax.core
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from deepdefense.errors import InputError
from deepdefense.seam.contract import Fold
from deepdefense.seam.validation import check_indices
from deepdefense_jax.models import dtype_of, inferring

__all__ = ["JaxSeam"]

State = TypeVar("State", bound=NamedTuple)
Fixed = TypeVar("Fixed", bound=NamedTuple)
Forward = Callable[[Array], Array]


def _constant(function: Callable[..., Any], *examples: Any) -> Callable[..., Any]:
    """The same function, with all that it is closed over held constant under differentiation.

    So nothing of it enters the differentiated program, where a `lax.while_loop` has no transpose.
    """
    # In a function of our own, as a module that can be called need not be hashable.
    converted, hoisted = jax.closure_convert(lambda *given: function(*given), *examples)
    held = [lax.stop_gradient(value) for value in hoisted]
    return lambda *arguments: converted(*arguments, *held)


class JaxSeam:
    """The seam in JAX."""

    name = "jax"
    xp: Any = jnp

    def asarray(self, value: Any, like: Any) -> Array:
        placed, dtype = jnp.asarray(value), dtype_of(like)
        floating = jnp.issubdtype(placed.dtype, jnp.floating)
        return placed.astype(dtype) if floating and dtype is not None else placed

    def to_numpy(self, x: Array) -> np.ndarray:
        return np.array(x)

    def is_concrete(self, x: Array) -> bool:
        return not isinstance(x, jax.core.Tracer)

    def index(self, labels: Any, depth: int, like: Array) -> Array:
        known = np.asarray(labels) if self.is_concrete(labels) else None
        dtype = labels.dtype if known is None else known.dtype
        check_indices(jnp.issubdtype(dtype, jnp.integer), dtype, known, depth)
        return jnp.asarray(labels).astype(int)

    def one_hot(self, index: Array, depth: int, like: Array) -> Array:
        return jax.nn.one_hot(index, depth, dtype=like.dtype)

    def take(self, values: Array, index: Array) -> Array:
        place = jnp.reshape(index, (-1,) + (1,) * (values.ndim - 1))
        return jnp.take_along_axis(values, place, axis=1)[:, 0]

    def rank(self, scores: Array, count: int) -> Array:
        return jnp.argsort(scores, axis=1, descending=True, stable=True)[:, :count]

    def euclidean(self, v: Array) -> Array:
        norms: Array = jnp.linalg.norm(v, axis=-1)
        return norms

    def epsilon(self, x: Array) -> float:
        if x.dtype not in (jnp.float32, jnp.float64):
            raise InputError(
                f"examples must be float32 or float64, got {x.dtype}: use x.astype(float)"
            )
        return float(np.finfo(x.dtype).eps)

    def stop_gradient(self, x: Array) -> Array:
        return lax.stop_gradient(x)

    @contextmanager
    def precise(self) -> Iterator[None]:
        with jax.default_matmul_precision("highest"):
            yield

    def forward(self, f: Forward, x: Array) -> Array:
        x = lax.stop_gradient(x)
        return lax.stop_gradient(self._held(f, x)(x))

    def _held(self, f: Forward, x: Array) -> Forward:
        """The network for results that are constants, so that loops of it need no transpose.

        Outside of a transformation there is no program for it to enter, and to convert a small
        network at every call took several times as long as to call it.
        """
        return f if self.is_concrete(x) else _constant(f, x)

    @contextmanager
    def inference(self, model: Any) -> Iterator[Forward]:
        with inferring(model) as f:
            yield f

    def compiled(self, f: Forward) -> Forward:
        # Operation by operation an evaluation of LeNet took more than twice as long.
        return jax.jit(lambda x: f(x))

    def class_gradients(self, f: Forward, x: Array) -> tuple[Array, Fold]:
        x = lax.stop_gradient(x)
        logits, pull = jax.vjp(self._held(f, x), x)

        def fold(step: Callable[..., Any], state: Any, contrasts: Array) -> Any:
            # One by one: all at once takes several times as long on CPUs, and the memory of all.
            def taken(state: Any, contrast: Array) -> tuple[Any, None]:
                gradient = lax.stop_gradient(pull(contrast)[0])
                return step(state, contrast[:, None], gradient[:, None]), None

            each = jnp.swapaxes(contrasts, 0, 1)
            if not self.is_concrete(contrasts):
                return lax.scan(taken, state, each)[0]
            for contrast in each:
                state, _ = taken(state, contrast)
            return state

        return lax.stop_gradient(logits), fold

    def vjp(
        self, f: Forward, x: Array, *, twice: bool = True
    ) -> tuple[Array, Callable[[Array], Array]]:
        logits, pull = jax.vjp(f, x)

        def gradient(cotangent: Array) -> Array:
            pulled: Array = pull(cotangent)[0]
            return pulled if twice else lax.stop_gradient(pulled)

        return logits, gradient

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
        def masked(carry: tuple[State, Array]) -> tuple[State, Array]:
            old, active = carry
            new, going = body(old, fixed)
            kept = old._make(
                jnp.where(jnp.reshape(active, (-1,) + (1,) * (b.ndim - 1)), b, a)
                for a, b in zip(old, new, strict=True)
            )
            return kept, active & going

        carry = (state, active)
        if self.is_concrete(active):
            for _ in range(steps):
                if not bool(carry[1].any()):
                    break
                carry = masked(carry)
        elif differentiable:
            carry, _ = lax.scan(
                lambda carry, _: (lax.cond(carry[1].any(), masked, lambda c: c, carry), None),
                carry,
                length=steps,
            )
        else:
            step = _constant(masked, carry)
            _, carry = lax.while_loop(
                lambda count: (count[0] < steps) & count[1][1].any(),
                lambda count: (count[0] + 1, step(count[1])),
                (0, carry),
            )
        return carry[0]

    def softmax_cross_entropy(self, logits: Array, labels: Array) -> Array:
        own = jnp.expand_dims(labels, 1)
        return -jnp.take_along_axis(jax.nn.log_softmax(logits), own, axis=1)[:, 0]
