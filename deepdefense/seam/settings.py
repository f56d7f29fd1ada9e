"""Settings: fields of frozen dataclasses, each declared once with its default, help and check."""

from __future__ import annotations

import inspect
import math
import textwrap
from collections.abc import Callable
from dataclasses import field, fields
from typing import Any, NamedTuple, TypeVar, get_type_hints

from deepdefense.seam.validation import (
    check_choice,
    check_count,
    check_flag,
    check_number,
    check_order,
    to_python_number,
)

__all__ = [
    "Setting",
    "SettingCheck",
    "check_settings",
    "document_settings",
    "help_texts",
    "list_settings",
    "none_or",
    "norm_order",
    "one_of",
    "real_number",
    "setting",
    "true_or_false",
    "whole_number",
]

ClassT = TypeVar("ClassT")
ValueT = TypeVar("ValueT")


# Takes a setting's name and value. Returns the value to store, or raises `InputError`.
SettingCheck = Callable[[str, Any], Any]


class Setting(NamedTuple):
    """One declared setting of a class."""

    name: str
    type: Any
    default: Any
    help: str
    unset: str | None  # what None means, in words
    option: bool  # whether the command line has an option for it


def setting(
    default: ValueT,
    help: str,
    check: SettingCheck | None = None,
    *,
    unset: str | None = None,
    option: bool = True,
) -> ValueT:
    """Declare a field of a settings class.

    The class's documentation, the options of the command line, and the tables of settings on pages
    and in the docs are made from the declaration.

    Args:
        default: the value unless one is given.
        help: a phrase that says what the setting is, without a full stop.
        check: runs on the value whenever the class is instantiated.
        unset: what None means, in words, for a setting that may be None.
        option: whether the command line has an option for it.

    >>> from dataclasses import dataclass
    >>> @document_settings
    ... @dataclass(frozen=True)
    ... class Schedule:
    ...     '''How long to train.'''
    ...
    ...     epochs: int = setting(5, "passes over the training examples", whole_number(least=1))
    ...
    ...     def __post_init__(self) -> None:
    ...         check_settings(self)
    >>> print(Schedule.__doc__)
    How long to train.
    <BLANKLINE>
    Args:
        epochs: passes over the training examples.
    >>> Schedule(epochs=0)
    Traceback (most recent call last):
    deepdefense.errors.InputError: epochs must be a whole number, 1 or more, got 0
    """
    metadata = {"help": help, "check": check, "unset": unset, "option": option}
    # `dataclass` replaces the field by its default; type checkers see the type of the default.
    declared: Any = field(default=default, metadata=metadata)
    value: ValueT = declared
    return value


def check_settings(settings: Any) -> None:
    """Check every setting of a frozen dataclass; call it in `__post_init__`.

    NumPy's numbers become Python's first, which compilers and JSON take.
    """
    for declared in fields(settings):
        value = to_python_number(getattr(settings, declared.name))
        check: SettingCheck | None = declared.metadata.get("check")
        if check is not None:
            value = check(declared.name, value)
        object.__setattr__(settings, declared.name, value)


def list_settings(kind: type) -> tuple[Setting, ...]:
    """Return the declared settings of a class, in the order of its fields."""
    types = get_type_hints(kind)
    return tuple(
        Setting(
            declared.name,
            types[declared.name],
            declared.default,
            declared.metadata["help"],
            declared.metadata["unset"],
            declared.metadata["option"],
        )
        for declared in fields(kind)
        if "help" in declared.metadata
    )


def help_texts(*kinds: type) -> dict[str, str]:
    """Return the help text of every declared setting of some classes, by its name."""
    return {
        declared.name: declared.metadata["help"]
        for kind in kinds
        for declared in fields(kind)
        if "help" in declared.metadata
    }


def document_settings(kind: type[ClassT]) -> type[ClassT]:
    """Add an "Args:" section, made from the declared settings, to the docstring of a dataclass."""
    lines = []
    for declared in fields(kind):  # type: ignore[arg-type]
        if "help" in declared.metadata:
            unset = declared.metadata["unset"]
            text = f"{declared.name}: {declared.metadata['help']}"
            text += "." if unset is None else f"; None: {unset}."
            lines.append(textwrap.fill(text, 96, subsequent_indent="    "))
    if kind.__doc__ and lines:
        arguments = textwrap.indent("\n".join(lines), "    ")
        kind.__doc__ = f"{inspect.cleandoc(kind.__doc__)}\n\nArgs:\n{arguments}"
    return kind


def real_number(least: float, below: float = math.inf) -> SettingCheck:
    """Check for a finite number with least <= value < below."""
    return lambda name, value: check_number(name, value, least=least, below=below)


def whole_number(least: int) -> SettingCheck:
    """Check for a whole number, at least `least`."""
    return lambda name, value: check_count(name, value, least=least)


def norm_order(name: str, value: Any) -> Any:
    """Check for the order of a norm, from 1 to inf."""
    check_order(value)
    return value


def true_or_false(name: str, value: Any) -> Any:
    """Check for True or False."""
    check_flag(name, value)
    return value


def one_of(*choices: str) -> SettingCheck:
    """Check for one of the named choices."""

    def check(name: str, value: Any) -> Any:
        check_choice(name, value, choices)
        return value

    return check


def none_or(check: SettingCheck, *others: str) -> SettingCheck:
    """Check that accepts None and the `others` too."""
    return lambda name, value: value if value is None or value in others else check(name, value)
