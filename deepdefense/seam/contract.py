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
Pull: TypeAlias = Callable[[Array], Array]  # a cotangent [b k] -> the gradient [b d]
Fold: TypeAlias = Callable[[Callable[[Any, Array, Array], Any], Any, Array], Any]
Body: TypeAlias = Callable[[Any, Any], tuple[Any, Array]]  # one iteration: see `iterate`
State = TypeVar("State", bound=NamedTuple)
Fixed = TypeVar("Fixed", bound=NamedTuple)


class Backend(abc.ABC):
    """The operations of one framework: two attributes, ten abstract methods, and defaults.

    An adapter overrides a default where its framework has a faster way. Device and dtype follow
    from the arrays given; nothing draws from a global random state.
    """

    name: str  # the root module of the framework's tensor type, as in `use_backend(name)`
    cast_hint: str = ""  # how a user makes `x` floating, for an error message
    xp: Any
    """The native namespace. Algorithms use these names only, with positional arguments:

    abs sqrt exp log cos tanh sign floor where minimum(array, array) maximum(array, array) clip
    argmax argmin all isfinite zeros_like ones_like reshape (`deepdefense.testing` also logaddexp).
    Reductions and products go through einops, which must support the arrays. An array itself has
    ``+ - * /``, comparisons, ``& | ~``, slices, ``None`` as an index, ``len`` and ``shape``.
    """

    @abc.abstractmethod
    def asarray(self, value: Any, like: Model | Array) -> Array:
        """Convert to an array on the device of `like` (array, model), in its dtype if floating."""

    @abc.abstractmethod
    def to_numpy(self, x: Array) -> np.ndarray:
        """Copy to host memory, without any graph."""

    @abc.abstractmethod
    def is_concrete(self, x: Array) -> bool:
        """Return whether `x` has values; while a compiler traces, it has none."""

    @abc.abstractmethod
    def index(self, labels: Any, depth: int, like: Array) -> Array:
        """Convert labels [b] to native indices on the device of `like`; call `check_indices`."""

    @abc.abstractmethod
    def one_hot(self, index: Array, depth: int, like: Array) -> Array:
        """[...] -> [... depth], with dtype and device of `like`."""

    @abc.abstractmethod
    def rank(self, scores: Array, count: int) -> Array:
        """[b k] -> [b count]: indices of the highest scores, best first, ties by lower index."""

    @abc.abstractmethod
    def stop_gradient(self, x: Array) -> Array:
        """Return the same values, constant under differentiation."""

    @abc.abstractmethod
    def inference(self, model: Model) -> AbstractContextManager[Forward]:
        """Open the model with normalisation and dropout in inference mode, at full precision.

        On exit every mode, statistic, ``.grad`` and random state has its former value.
        """

    @abc.abstractmethod
    def vjp(self, f: Forward, x: Array, *, twice: bool = True) -> tuple[Array, Pull]:
        """Return logits [b k] at x [b d], and the pull to the gradient in x.

        While the framework records, both are differentiable in the parameters and in x;
        ``twice=False`` makes the gradient a constant and saves its graph.
        """

    @abc.abstractmethod
    def softmax_cross_entropy(self, logits: Array, labels: Array) -> Array:
        """[b k], [b] -> [b]: the framework's own stable kernel."""

    def device_of(self, x: Array) -> str:
        """Return the framework's name of the device of `x`."""
        return str(getattr(x, "device", "cpu"))

    def epsilon(self, x: Array) -> float:
        """Return machine epsilon; raise `InputError` unless `x` is float32 or float64."""
        dtype = str(getattr(x.dtype, "name", x.dtype))
        if (kind := dtype.rpartition(".")[2]) not in ("float32", "float64"):
            hint = f": use {self.cast_hint}" if self.cast_hint else ""
            raise InputError(f"examples must be float32 or float64, got {dtype}{hint}")
        return 2.0**-23 if kind == "float32" else 2.0**-52

    def take(self, values: Array, index: Array) -> Array:
        """[b n ...], [b] -> [b ...]: select one of each row's n entries."""
        n, axes = values.shape[1], len(values.shape)
        chosen = self.xp.reshape(self.one_hot(index, n, values) == 1, (-1, n, *[1] * (axes - 2)))
        entries = self.xp.where(chosen, values, self.xp.zeros_like(values))
        return reduce(entries, "b n ... -> b ...", "sum")

    def euclidean(self, v: Array) -> Array:
        """[... d] -> [...]: 2-norms; unlike `norms.norm`, squares may overflow or vanish."""
        return self.xp.sqrt(reduce(v * v, "... d -> ...", "sum"))

    def precise(self) -> AbstractContextManager[None]:
        """Open a context in which float32 products are rounded to float32, also on GPUs."""
        return nullcontext()

    def compiled(self, f: Forward) -> Forward:
        """Return `f`, compiled if that pays; its random draws may then never change."""
        return f

    def forward(self, f: Forward, x: Array) -> Array:
        """Return logits [b k] at x [b d], constant: no graph leads to the parameters or to x."""
        return self.stop_gradient(f(self.stop_gradient(x)))

    def class_gradients(self, f: Forward, x: Array) -> tuple[Array, Fold]:
        """Return logits [b k] at x [b d], and a fold over gradients of contrasts; all constant.

        ``fold(step, state, contrasts)`` sets ``state = step(state, chunk, gradients)`` for chunks
        [b n k] of the contrasts [b m k], in their order, so that not all gradients [b n d] of
        ``sum_k chunk[k] f_k(x)`` need fit in memory. The backend chooses n.
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
        """Apply `body` to the active examples until none is left, at most `steps` times.

        `body` maps the state and the constants of some examples to their next state and whether
        each continues. Examples are independent: a backend passes all of them or only the active
        ones, and leaves the state of the others unchanged.
        """
        for _ in range(steps):
            if not self.to_numpy(active).any():
                break
            state, active = self.step_active(body, state, fixed, active)
        return state

    def step_active(self, body: Body, state: Any, fixed: Any, active: Array) -> tuple[Any, Array]:
        """Apply `body` to all examples, but leave the state of those not active unchanged."""
        new, going = body(state, fixed)
        rows = (self.xp.reshape(active, (-1, *[1] * (len(a.shape) - 1))) for a in new)
        return state._make(map(self.xp.where, rows, new, state)), active & going
