"""What a framework must offer: the contract that every algorithm is written against."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, NamedTuple, Protocol, TypeAlias, TypeVar, runtime_checkable

import numpy as np

__all__ = ["Array", "Backend", "Fold", "Forward", "Model"]

Array: TypeAlias = Any  # a tensor of whichever framework is in use; shapes stand in the docstrings


Model: TypeAlias = Callable[[Array], Array]  # a batch [b ...] -> logits [b k]


Forward: TypeAlias = Callable[[Array], Array]  # a model whose evaluation is free of side effects


Fold: TypeAlias = Callable[[Callable[[Any, Array, Array], Any], Any, Array], Any]


State = TypeVar("State", bound=NamedTuple)


Fixed = TypeVar("Fixed", bound=NamedTuple)


@runtime_checkable
class Backend(Protocol):
    """What a framework must offer. An adapter of it takes some 100 lines.

    Device and dtype always follow from the arrays given; nothing draws from a global random state.
    """

    @property
    def name(self) -> str:
        """The root module of the framework's tensor type, as in ``use_backend(name)``."""
        ...

    @property
    def xp(self) -> Any:
        """The native namespace; only these names are used from it, all with positional arguments.

        abs sqrt exp log cos tanh sign floor where minimum(array, array) maximum(array, array)
        clip argmax argmin all isfinite zeros_like ones_like reshape. Reductions and products go
        through einops, which must know the arrays. Of an array itself: ``+ - * /`` and comparisons,
        with scalars too, ``& | ~``, slices, ``len`` and ``shape``. The networks of
        `deepdefense.testing` take logaddexp besides.
        """
        ...

    def asarray(self, value: Any, like: Model | Array) -> Array:
        """An array of this framework on the device and in the dtype of `like`, if it is floating.

        `like` is an array, or a model: its first floating parameter, if it has any.
        """
        ...

    def to_numpy(self, x: Array) -> np.ndarray:
        """A copy in host memory, free of any graph."""
        ...

    def is_concrete(self, x: Array) -> bool:
        """Whether the values of `x` are at hand: not while a compiler traces."""
        ...

    def index(self, labels: Any, depth: int, like: Array) -> Array:
        """Labels [b] as this framework's index type, on the device of `like`.

        Raises `InputError` unless they are integers in [0, depth), where values are known:
        `deepdefense.seam.validation.check_indices` does.
        """
        ...

    def one_hot(self, index: Array, depth: int, like: Array) -> Array:
        """[...] -> [... depth], with dtype and device of `like`."""
        ...

    def take(self, values: Array, index: Array) -> Array:
        """[b n ...], [b] -> [b ...]: of each row's n the one with that index."""
        ...

    def rank(self, scores: Array, count: int) -> Array:
        """[b k] -> [b count]: indices of the highest scores, best first, ties by lower index."""
        ...

    def euclidean(self, v: Array) -> Array:
        """The 2-norm of each row, [... d] -> [...], by the framework's own kernel.

        Its squares may overflow or vanish, and it need not be differentiable: where either matters,
        algorithms call `deepdefense.geometry.norms.norm`.
        """
        ...

    def epsilon(self, x: Array) -> float:
        """Machine epsilon of the dtype; raises `InputError` unless it is float32 or float64."""
        ...

    def stop_gradient(self, x: Array) -> Array:
        """The same values, constant under differentiation."""
        ...

    def inference(self, model: Model) -> AbstractContextManager[Forward]:
        """The model with normalisation and dropout in inference mode, at full precision.

        On leaving, every mode, statistic, ``.grad`` and random state is what it was.
        """
        ...

    def precise(self) -> AbstractContextManager[None]:
        """Inside, products of float32 numbers are rounded to float32, wherever they are computed.

        GPUs round them to 11 bits (TensorFloat-32) where a framework lets them, and PyTorch's
        convolutions do unless told. That does training no harm; but the smallest perturbation ends
        at a boundary, and there such an answer changes with the size of the batch.
        """
        ...

    def forward(self, f: Forward, x: Array) -> Array:
        """Logits [b k] at x [b d], constant: no graph leads to the parameters or to x."""
        ...

    def compiled(self, f: Forward) -> Forward:
        """The same function, for a great many calls with known values; `f` itself where it may be.

        What it draws at random may be drawn once and for all.
        """
        ...

    def class_gradients(self, f: Forward, x: Array) -> tuple[Array, Fold]:
        """Logits [b k] at x [b d], and a fold over gradients of contrasts; all constant.

        ``fold(step, state, contrasts)`` takes contrasts [b m k] in their order, some at a time, so
        that their gradients need not all fit in memory: ``state = step(state, some, gradients)``
        with ``some`` [b n k] of them and the gradients [b n d] of ``sum_k some[k] f_k(x)``. The
        adapter chooses n, from one to all.
        """
        ...

    def vjp(
        self, f: Forward, x: Array, *, twice: bool = True
    ) -> tuple[Array, Callable[..., Array]]:
        """Logits [b k] at x [b d], and a pull from a cotangent [b k] to a gradient [b d].

        While the framework records, both are differentiable in the parameters and in x;
        ``twice=False`` makes the gradient a constant and spares its graph.
        """
        ...

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
        each goes on. Examples are independent: an adapter may hand over all of them or only the
        active ones, and keeps the state of the others as it is.
        """
        ...

    def softmax_cross_entropy(self, logits: Array, labels: Array) -> Array:
        """[b k], [b] -> [b]: the framework's own stable kernel."""
        ...
