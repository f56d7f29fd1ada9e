"""Choose the backend for a function call, by its arrays, its model, or `use_backend`."""

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


def _join_names(separator: str) -> str:
    return separator.join(sorted(_entries())) or "none (is deepdefense installed?)"


def available_backends() -> dict[str, bool]:
    """Map the name of every registered backend to whether its framework is installed.

    This imports no framework.

    >>> available_backends()["numpy"]
    True
    """
    return {name: importlib.util.find_spec(name) is not None for name in sorted(_entries())}


def get_backend(name: str) -> Backend:
    """Return the backend with the given name; import its framework if necessary.

    Raises `InputError` if no backend has this name, and `ImportError` if the framework is not
    installed.
    """
    _load(name)
    return _loaded[name]


@traced_as_constant
def _load(name: str) -> None:
    if name in _loaded:
        return
    if name not in _entries():
        raise InputError(f"no backend is called {name!r}; known: {_join_names(', ')}")
    try:
        backend = _entries()[name].load()
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != name:
            raise
        distribution = _entries()[name].dist
        is_ours = distribution is None or distribution.name == "deepdefense"
        requirement = f'"deepdefense[{name}]"' if is_ours else name
        raise ImportError(
            f"the {name} backend needs {name}, which is not installed: pip install {requirement}",
            name=name,
        ) from error
    if not isinstance(backend, Backend):
        required = Backend.__abstractmethods__ | {"name", "xp"}
        missing = sorted(member for member in required if not hasattr(backend, member))
        lack = ", ".join(missing) or "the base class deepdefense.Backend"
        raise TypeError(f"the entry point {name!r} is no backend: it lacks {lack}")
    _loaded[name] = backend


class use_backend:  # noqa: N801 - a lower-case verb, as in contextlib
    """Set the backend for functions without array arguments.

    Functions that then get an array of another framework raise `InputError`. In a `with` statement,
    the setting ends with the block. Otherwise it holds for the rest of the current thread or
    asynchronous task.

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
def _default_name() -> str | None:
    backend = _default.get()
    return None if backend is None else backend.name


def current_backend() -> Backend | None:
    """Return the backend that `use_backend` set, or None if none is set."""
    return _default.get()


@cache
def _roots() -> dict[str, str]:
    """Map the root module of every framework and of every backend to the backend's name.

    For example, both torch and deepdefense_torch map to torch.
    """
    packages = {entry.module.partition(".")[0]: name for name, entry in _entries().items()}
    return packages | {name: name for name in _entries()}


@traced_as_constant
def _framework_of_root(root: str) -> str | None:
    return _roots().get(root)


def framework_of(value: object) -> str | None:
    """Return the name of the backend whose framework defines the type of `value`, or None.

    A user's own class belongs to a framework if a base class does, such as PyTorch's `nn.Module`.

    >>> framework_of(np.zeros(2)), framework_of([0.0, 0.0])
    ('numpy', None)
    """
    roots = (cls.__module__.partition(".")[0] for cls in type(value).__mro__)
    return next((name for root in roots if (name := _framework_of_root(root))), None)


def backend_of(*arrays: Any, model: Any = None, labels: Any = None) -> Backend:
    """Return the backend of the framework to which the arrays, the model and the labels belong.

    The model may also be a plain function, and the labels a plain sequence. Raises `InputError` if
    an array belongs to no framework, if the arguments belong to two frameworks, or if `use_backend`
    has set another backend.

    >>> backend_of(np.zeros((2, 3))).name
    'numpy'
    """
    names = []
    for array in arrays:
        name = framework_of(array)
        if name is None:
            raise InputError(
                f"expected an array of {_join_names(' or ')}, got "
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
    model_name = framework_of(model)
    if model_name not in (None, names[0]):
        raise InputError(
            f"the model is of {model_name}, but the examples are of {names[0]}: convert them first"
        )
    default_name = _default_name()
    if default_name not in (None, names[0]):
        raise InputError(
            f'use_backend("{default_name}") is in force, but this array is of {names[0]}: '
            f'convert it, or call use_backend("{names[0]}")'
        )
    return get_backend(names[0])


def backend_for(model: Any, *arrays: Any) -> Backend:
    """Return the backend that runs the model on the arrays, which may be NumPy arrays.

    Arrays of a framework other than NumPy determine the backend. For NumPy arrays, the model's
    framework determines it. If the model is a plain function, return the backend that `use_backend`
    set, or NumPy's if none is set.
    """
    if all(framework_of(array) in (None, "numpy") for array in arrays):
        if (name := framework_of(model)) is not None:
            return get_backend(name)
        if (default := _default.get()) is not None:
            return default
    return backend_of(*arrays)


def to_host(value: Any) -> np.ndarray:
    """Convert an array of any framework, or a sequence of numbers, to a NumPy array."""
    name = framework_of(value)
    return np.asarray(value) if name in (None, "numpy") else get_backend(name).to_numpy(value)
