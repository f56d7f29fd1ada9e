"""How the backend of a call is found: by the arrays, the model, or `use_backend`."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from contextvars import ContextVar
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any

import numpy as np

from deepdefense.errors import InputError
from deepdefense.seam.compilers import traced_as_constant
from deepdefense.seam.contract import Backend

__all__ = [
    "available_backends",
    "backend_for",
    "backend_of",
    "current_backend",
    "framework_of",
    "get_backend",
    "to_host",
    "use_backend",
]

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


@traced_as_constant
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
        required = Backend.__abstractmethods__ | {"name", "xp"}
        missing = sorted(member for member in required if not hasattr(backend, member))
        lack = ", ".join(missing) or "the base class deepdefense.Backend"
        raise TypeError(f"the entry point {name!r} is no backend: it lacks {lack}")
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


@traced_as_constant
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


@traced_as_constant
def _home(root: str) -> str | None:
    return _homes().get(root)


def framework_of(value: object) -> str | None:
    """The backend whose framework defines the type of `value`, by the type's own ancestry.

    >>> framework_of(np.zeros(2)), framework_of([0.0, 0.0])
    ('numpy', None)
    """
    roots = (cls.__module__.partition(".")[0] for cls in type(value).__mro__)
    return next((home for root in roots if (home := _home(root))), None)


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
