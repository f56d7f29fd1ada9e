"""The contract between algorithms and frameworks: the operations that a backend implements."""

from __future__ import annotations

import abc
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple, TypeAlias, TypeVar

import numpy as np
from einops import reduce

from deepdefense.errors import InputError

__all__ = ["Array", "Backend", "Fixed", "Fold", "Forward", "Model", "Pull", "State"]

Array: TypeAlias = Any  # a tensor of the framework in use; docstrings give its shape
Model: TypeAlias = Callable[[Array], Array]  # a batch [b ...] -> logits [b k]
Forward: TypeAlias = Callable[[Array], Array]  # a model whose call has no side effects
Pull: TypeAlias = Callable[[Array], Array]  # a cotangent [b k] of the logits -> gradients [b d]
Fold: TypeAlias = Callable[[Callable[[Any, Array, Array], Any], Any, Array], Any]
Body: TypeAlias = Callable[[Any, Any], tuple[Any, Array]]  # see `Backend.iterate`
State = TypeVar("State", bound=NamedTuple)
Fixed = TypeVar("Fixed", bound=NamedTuple)


class Backend(abc.ABC):
    """The operations of one framework. A subclass defines `name`, `xp` and ten abstract methods.

    Results have the arguments' device and dtype. No operation draws from a global random state.
    """

    name: str  # the root module of the framework's tensor type; `use_backend` takes this name
    cast_hint: str = ""  # an expression that casts `x` to floating point, for an error message
    xp: Any
    """The framework's namespace. Algorithms use only these names, with positional arguments:

    abs sqrt exp log cos tanh sign floor where minimum(array, array) maximum(array, array) clip
    argmax argmin all isfinite zeros_like ones_like reshape (`deepdefense.testing` also logaddexp).
    Reductions and products use einops, so einops must support the arrays. The arrays must support
    ``+ - * /``, comparisons, ``& | ~``, slices, ``None`` as an index, ``len`` and ``shape``.
    """

    @abc.abstractmethod
    def asarray(self, value: Any, like: Model | Array) -> Array:
        """Convert `value` to an array on `like`'s device, and floats also to `like`'s dtype."""

    @abc.abstractmethod
    def to_numpy(self, x: Array) -> np.ndarray:
        """Copy the values of `x` to a NumPy array in host memory."""

    @abc.abstractmethod
    def is_concrete(self, x: Array) -> bool:
        """Return whether `x` holds values; an array that a compiler traces holds none."""

    @abc.abstractmethod
    def index(self, labels: Any, depth: int, like: Array) -> Array:
        """Return labels [b], checked by `check_indices`, as integers on the device of `like`."""

    @abc.abstractmethod
    def one_hot(self, index: Array, depth: int, like: Array) -> Array:
        """Return one-hot vectors [... depth] of `index` [...], with `like`'s dtype and device."""

    @abc.abstractmethod
    def rank(self, scores: Array, count: int) -> Array:
        """Return indices [b count] of the top scores [b k], descending; lower index wins ties."""

    @abc.abstractmethod
    def stop_gradient(self, x: Array) -> Array:
        """Return `x` detached: no gradient flows through the result."""

    @abc.abstractmethod
    def inference(self, model: Model) -> AbstractContextManager[Forward]:
        """Yield the model with normalisation and dropout in inference mode, not in mixed precision.

        On exit, restore the model's modes, statistics and ``.grad``, and all random states.
        """

    @abc.abstractmethod
    def vjp(self, f: Forward, x: Array, *, twice: bool = True) -> tuple[Array, Pull]:
        """Return logits f(x) [b k] at x [b d], and a function from cotangents to gradients.

        The function maps c [b k] to the gradient [b d] of ``sum(c * f(x))`` in x. While the
        framework records operations, logits and gradients are differentiable in the parameters
        and in x. With ``twice=False`` gradients are detached, to save memory.
        """

    @abc.abstractmethod
    def softmax_cross_entropy(self, logits: Array, labels: Array) -> Array:
        """Return the losses [b] for logits [b k] and labels [b], without overflow."""

    def device_of(self, x: Array) -> str:
        """Return the framework's name for the device that holds `x`."""
        return str(getattr(x, "device", "cpu"))

    def epsilon(self, x: Array) -> float:
        """Return the machine epsilon of x's dtype; raise `InputError` unless float32 or float64."""
        dtype = str(getattr(x.dtype, "name", x.dtype))
        if (kind := dtype.rpartition(".")[2]) not in ("float32", "float64"):
            hint = f": use {self.cast_hint}" if self.cast_hint else ""
            raise InputError(f"examples must be float32 or float64, got {dtype}{hint}")
        return 2.0**-23 if kind == "float32" else 2.0**-52

    def take(self, values: Array, index: Array) -> Array:
        """Return values[i, index[i]] for every example i: [b n ...], [b] -> [b ...]."""
        n, axes = values.shape[1], len(values.shape)
        chosen = self.xp.reshape(self.one_hot(index, n, values) == 1, (-1, n, *[1] * (axes - 2)))
        entries = self.xp.where(chosen, values, self.xp.zeros_like(values))
        return reduce(entries, "b n ... -> b ...", "sum")

    def euclidean(self, v: Array) -> Array:
        """Return 2-norms [...] of v [... d]. Squares may overflow, unlike in `norms.norm`."""
        return self.xp.sqrt(reduce(v * v, "... d -> ...", "sum"))

    def precise(self) -> AbstractContextManager[None]:
        """Open a context in which float32 products have full float32 precision, also on GPUs."""
        return nullcontext()

    def compiled(self, f: Forward) -> Forward:
        """Return `f` or a compiled `f`, which may repeat the same random draws in every call."""
        return f

    def forward(self, f: Forward, x: Array) -> Array:
        """Return logits [b k] at x [b d], detached from the parameters and from x."""
        return self.stop_gradient(f(self.stop_gradient(x)))

    def class_gradients(self, f: Forward, x: Array) -> tuple[Array, Fold]:
        """Return detached logits [b k] at x [b d], and `fold`, a loop over gradients of contrasts.

        A contrast c [b k] has the gradient of ``sum_k c[k] f_k(x)`` in x. To save memory,
        ``fold(step, state, contrasts)`` splits contrasts [b m k] into chunks [b n k]. For each
        chunk in turn, it sets ``state = step(state, chunk, gradients)`` with detached gradients
        [b n d]. ``fold`` returns the last state.
        """
        logits, pull = self.vjp(f, self.stop_gradient(x), twice=False)

        def fold(step: Callable[..., Any], state: Any, contrasts: Array) -> Any:
            for i in range(contrasts.shape[1]):
                state = step(state, contrasts[:, i : i + 1], pull(contrasts[:, i])[:, None])
            return state

        return self.stop_gradient(logits), fold

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
        """Apply `body` to the active examples until none is active, at most `steps` times.

        ``body(state, fixed)`` returns the next state, and a mask [b] of the examples to continue.
        `fixed` holds arrays that the loop does not change. Backends may pass only the active rows
        to `body`. Gradients flow if `differentiable`.
        """
        for _ in range(steps):
            if not self.to_numpy(active).any():
                break
            state, active = self.step_active(body, state, fixed, active)
        return state

    def step_active(self, body: Body, state: Any, fixed: Any, active: Array) -> tuple[Any, Array]:
        """Apply `body` once, keep the state of inactive examples, and return state and mask."""
        new, going = body(state, fixed)
        rows = (self.xp.reshape(active, (-1, *[1] * (len(a.shape) - 1))) for a in new)
        return state._make(map(self.xp.where, rows, new, state)), active & going
