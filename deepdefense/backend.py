"""The seam: the few operations every algorithm is written in, and how a framework is chosen.

An algorithm sees a framework only through `Backend`. Three primitives are at its heart: `forward`
(logits), `class_gradients` (of any contrast of classes, towards the input, no graph) and `vjp` (a
pull that may be differentiated again, so that a penalty can be trained through an attack).

Backends are found through the entry-point group ``deepdefense.backends``. An entry's name is the
root module of the framework's tensor type, so the backend of an array is read off the array's class
and nothing is imported to find out.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from contextvars import ContextVar
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any, NamedTuple, Protocol, TypeAlias, TypeVar, runtime_checkable

import numpy as np

from deepdefense.errors import InputError
from deepdefense.tracing import as_written, constant

__all__ = [
    "Array",
    "Backend",
    "Fold",
    "Forward",
    "Model",
    "available_backends",
    "backend_for",
    "backend_of",
    "current_backend",
    "framework_of",
    "get_backend",
    "to_host",
    "use_backend",
]

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

    def known(self, x: Array) -> bool:
        """Whether the values of `x` are at hand: not while a compiler traces."""
        ...

    def index(self, labels: Any, depth: int, like: Array) -> Array:
        """Labels [b] as this framework's index type, on the device of `like`.

        Raises `InputError` unless they are integers in [0, depth), where values are known:
        `deepdefense.checks.check_indices` does.
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
        algorithms call `deepdefense.norms.norm`.
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


GROUP = "deepdefense.backends"
_default: ContextVar[Backend | None] = ContextVar("deepdefense_backend", default=None)
_loaded: dict[str, Backend] = {}


@cache
def _entries() -> dict[str, EntryPoint]:
    return {entry.name: entry for entry in entry_points(group=GROUP)}


def _known(between: str) -> str:
    return between.join(sorted(_entries())) or "none (is deepdefense installed?)"


def available_backends() -> dict[str, bool]:
    """Every known backend, and whether its framework is installed; imports none of them.

    >>> available_backends()["numpy"]
    True
    """
    return {name: importlib.util.find_spec(name) is not None for name in sorted(_entries())}


def get_backend(name: str) -> Backend:
    """The backend of that name, importing its framework.

    Raises `InputError` if no such backend is known, `ImportError` if its framework is missing.
    """
    _load(name)
    return _loaded[name]


@constant
def _load(name: str) -> None:
    if name in _loaded:
        return
    if name not in _entries():
        raise InputError(f"no backend is called {name!r}; known: {_known(', ')}")
    try:
        backend = _entries()[name].load()
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != name:
            raise
        of = _entries()[name].dist  # a third party's backend has no extra here
        extra = of is None or of.name == "deepdefense"
        wanted = f'"deepdefense[{name}]"' if extra else name
        raise ImportError(
            f"the {name} backend needs {name}, which is not installed: pip install {wanted}",
            name=name,
        ) from error
    if not isinstance(backend, Backend):
        members = (name for name in vars(Backend) if not name.startswith("_"))
        missing = sorted(member for member in members if not hasattr(backend, member))
        raise TypeError(f"the entry point {name!r} is no backend: it lacks {', '.join(missing)}")
    _loaded[name] = backend


class use_backend:  # noqa: N801 - reads as a verb, as contextlib's own classes do
    """Choose the backend of whatever takes no array; an array of another one is then an error.

    Called, it holds from then on in this thread or task; as a context manager, until its end.

    >>> with use_backend("numpy"):
    ...     current_backend().name
    'numpy'
    """

    def __init__(self, name: str) -> None:
        self._token = _default.set(get_backend(name))

    def __enter__(self) -> Backend:
        backend = _default.get()
        assert backend is not None
        return backend

    def __exit__(self, *_: object) -> None:
        _default.reset(self._token)


@constant
def _chosen() -> str | None:
    backend = _default.get()
    return None if backend is None else backend.name


def current_backend() -> Backend | None:
    """The backend that `use_backend` chose, or None."""
    return _default.get()


@cache
def _homes() -> dict[str, str]:
    """Root modules and the backend they belong to: each framework's, and each backend's own."""
    own = {entry.module.partition(".")[0]: name for name, entry in _entries().items()}
    return own | {name: name for name in _entries()}


@constant
def _home(root: str) -> str | None:
    return _homes().get(root)


@as_written
def framework_of(value: object) -> str | None:
    """The backend whose framework defines the type of `value`, by the type's own ancestry.

    >>> framework_of(np.zeros(2)), framework_of([0.0, 0.0])
    ('numpy', None)
    """
    roots = (cls.__module__.partition(".")[0] for cls in type(value).__mro__)
    return next((home for root in roots if (home := _home(root))), None)


@as_written
def backend_of(*arrays: Any, model: Any = None, labels: Any = None) -> Backend:
    """The one backend that the arrays belong to, and the model and the labels too.

    A model may be of no framework (a function), labels a plain sequence. Raises `InputError` for
    any other value of no framework, for two frameworks, and for one not chosen by `use_backend`.

    >>> backend_of(np.zeros((2, 3))).name
    'numpy'
    """
    names = []
    for array in arrays:
        name = framework_of(array)
        if name is None:
            raise InputError(
                f"expected an array of {_known(' or ')}, got "
                f"{type(array).__module__}.{type(array).__qualname__}: convert it first"
            )
        names.append(name)
    if labels is not None and not isinstance(labels, Sequence):
        names.append(framework_of(labels) or names[0])
    if len(set(names)) > 1:
        raise InputError(
            f"arrays of two frameworks in one call: {' and '.join(sorted(set(names)))}; "
            "convert them to one"
        )
    home = framework_of(model)
    if home not in (None, names[0]):
        raise InputError(
            f"the model is of {home}, but the examples are of {names[0]}: convert them first"
        )
    chosen = _chosen()
    if chosen not in (None, names[0]):
        raise InputError(
            f'use_backend("{chosen}") is in force, but this array is of {names[0]}: '
            f'convert it, or call use_backend("{names[0]}")'
        )
    return get_backend(names[0])


def backend_for(model: Any, *arrays: Any) -> Backend:
    """The backend for data that may be the host's: of the model, else the chosen one.

    So NumPy's data may be given along with a native model (`nn.Module`), or with any function
    once `use_backend` has said whose it is; they are then moved batch by batch.
    """
    if all(framework_of(array) in (None, "numpy") for array in arrays):
        if (name := framework_of(model)) is not None:
            return get_backend(name)
        if (chosen := _default.get()) is not None:
            return chosen
    return backend_of(*arrays)


def to_host(value: Any) -> np.ndarray:
    """Any framework's array, or a sequence of numbers, as NumPy's."""
    name = framework_of(value)
    return np.asarray(value) if name in (None, "numpy") else get_backend(name).to_numpy(value)
