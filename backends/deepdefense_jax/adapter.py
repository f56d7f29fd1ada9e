"""The operations of the contract in JAX, which work eagerly and inside JAX's transformations.

Outside JAX's transformations, loops are Python loops. Inside a transformation, they use `lax`.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import jax
import jax.core
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from deepdefense.seam.contract import Backend, Fixed, Fold, State
from deepdefense.seam.validation import check_indices
from deepdefense_jax.models import dtype_of, open_inference

__all__ = ["JaxOperations"]

Forward = Callable[[Array], Array]


def _close_over_constants(function: Callable[..., Any], *examples: Any) -> Callable[..., Any]:
    """Return the function with all the arrays that it closes over detached.

    JAX cannot differentiate a `lax.while_loop` in reverse mode. For detached arrays it need not.
    """
    # The lambda is hashable, as `closure_convert` requires, while a callable module may not be.
    converted, hoisted = jax.closure_convert(lambda *arguments: function(*arguments), *examples)
    constants = [lax.stop_gradient(value) for value in hoisted]
    return lambda *arguments: converted(*arguments, *constants)


class JaxOperations(Backend):
    """The operations of the contract (`deepdefense.seam.contract.Backend`) in JAX."""

    name = "jax"
    xp: Any = jnp
    cast_hint = "x.astype(float)"

    def asarray(self, value: Any, like: Any) -> Array:
        array, dtype = jnp.asarray(value), dtype_of(like)
        floating = jnp.issubdtype(array.dtype, jnp.floating)
        return array.astype(dtype) if floating and dtype is not None else array

    def to_numpy(self, x: Array) -> np.ndarray:
        return np.array(x)

    def is_concrete(self, x: Array) -> bool:
        return not isinstance(x, jax.core.Tracer)

    def index(self, labels: Any, depth: int, like: Array) -> Array:
        values = np.asarray(labels) if self.is_concrete(labels) else None
        dtype = labels.dtype if values is None else values.dtype
        check_indices(jnp.issubdtype(dtype, jnp.integer), dtype, values, depth)
        return jnp.asarray(labels).astype(int)

    def one_hot(self, index: Array, depth: int, like: Array) -> Array:
        return jax.nn.one_hot(index, depth, dtype=like.dtype)

    def take(self, values: Array, index: Array) -> Array:
        places = jnp.reshape(index, (-1,) + (1,) * (values.ndim - 1))
        return jnp.take_along_axis(values, places, axis=1)[:, 0]

    def rank(self, scores: Array, count: int) -> Array:
        return jnp.argsort(scores, axis=1, descending=True, stable=True)[:, :count]

    def euclidean(self, v: Array) -> Array:
        norms: Array = jnp.linalg.norm(v, axis=-1)
        return norms

    def stop_gradient(self, x: Array) -> Array:
        return lax.stop_gradient(x)

    def precise(self) -> AbstractContextManager[None]:
        context: AbstractContextManager[None] = jax.default_matmul_precision("highest")
        return context

    def inference(self, model: Any) -> AbstractContextManager[Forward]:
        return open_inference(model)

    def compiled(self, f: Forward) -> Forward:
        return jax.jit(lambda x: f(x))

    def forward(self, f: Forward, x: Array) -> Array:
        x = lax.stop_gradient(x)
        return lax.stop_gradient(self._hold_constants(f, x)(x))

    def _hold_constants(self, f: Forward, x: Array) -> Forward:
        """Return `f` if x is concrete, else `f` with the arrays that it closes over detached."""
        return f if self.is_concrete(x) else _close_over_constants(f, x)

    def class_gradients(self, f: Forward, x: Array) -> tuple[Array, Fold]:
        x = lax.stop_gradient(x)
        logits, pull = jax.vjp(self._hold_constants(f, x), x)

        def fold(step: Callable[..., Any], state: Any, contrasts: Array) -> Any:
            # Chunks hold one contrast, since larger chunks are slower on CPUs and need more memory.
            def take_step(state: Any, contrast: Array) -> tuple[Any, None]:
                gradient = lax.stop_gradient(pull(contrast)[0])
                return step(state, contrast[:, None], gradient[:, None]), None

            chunks = jnp.swapaxes(contrasts, 0, 1)
            if not self.is_concrete(contrasts):
                return lax.scan(take_step, state, chunks)[0]
            for contrast in chunks:
                state, _ = take_step(state, contrast)
            return state

        return lax.stop_gradient(logits), fold

    def vjp(self, f: Forward, x: Array, *, twice: bool = True) -> tuple[Array, Forward]:
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
        if self.is_concrete(active):
            return super().iterate(body, state, fixed, active, steps=steps)

        def masked(carry: tuple[State, Array]) -> tuple[State, Array]:
            return self.step_active(body, carry[0], fixed, carry[1])

        carry = (state, active)
        if differentiable:
            carry, _ = lax.scan(
                lambda carry, _: (lax.cond(carry[1].any(), masked, lambda c: c, carry), None),
                carry,
                length=steps,
            )
        else:
            step = _close_over_constants(masked, carry)
            _, carry = lax.while_loop(
                lambda count: (count[0] < steps) & count[1][1].any(),
                lambda count: (count[0] + 1, step(count[1])),
                (0, carry),
            )
        return carry[0]

    def softmax_cross_entropy(self, logits: Array, labels: Array) -> Array:
        return -self.take(jax.nn.log_softmax(logits), labels)
