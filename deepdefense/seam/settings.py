"""Declare settings as fields of frozen dataclasses, each with its default, help text and check."""

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

# A function of a setting's name and value. It returns the value to store, or raises `InputError`.
SettingCheck = Callable[[str, Any], Any]


class Setting(NamedTuple):
    """One setting that a dataclass declares, as `list_settings` returns it."""

    name: str
    type: Any
    default: Any
    help: str
    unset: str | None  # the meaning of the value None, in words
    option: bool  # whether the command line has an option for the setting


def setting(
    default: ValueT,
    help: str,
    check: SettingCheck | None = None,
    *,
    unset: str | None = None,
    option: bool = True,
) -> ValueT:
    """Declare a field of a dataclass as a setting, by assigning the result to the field.

    Args:
        default: the value of the field if the caller of the constructor passes none.
        help: a phrase that says what the setting is, without a full stop.
        check: the function that `check_settings` calls on the value, or None for no check.
        unset: the meaning of the value None, in words, for a setting that may be None.
        option: whether the command line has an option for the setting.

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
    # `dataclass` replaces this `Field` by the default, so give the result the default's type.
    declared: Any = field(default=default, metadata=metadata)
    value: ValueT = declared
    return value


def check_settings(settings: Any) -> None:
    """Check every setting of a frozen dataclass, and store the values that the checks return.

    The dataclass calls this function in `__post_init__`. NumPy scalars become Python numbers,
    because compilers and JSON do not accept NumPy scalars.
    """
    for declared in fields(settings):
        value = to_python_number(getattr(settings, declared.name))
        check: SettingCheck | None = declared.metadata.get("check")
        if check is not None:
            value = check(declared.name, value)
        object.__setattr__(settings, declared.name, value)


def list_settings(kind: type) -> tuple[Setting, ...]:
    """Return the settings that a dataclass declares, in the order of its fields."""
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
    """Map the name of every setting of the given dataclasses to its help text."""
    return {
        declared.name: declared.metadata["help"]
        for kind in kinds
        for declared in fields(kind)
        if "help" in declared.metadata
    }


def document_settings(kind: type[ClassT]) -> type[ClassT]:
    """Add an "Args:" section with all declared settings to the docstring of a dataclass."""
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
    """Return a check that a value is a finite number with least <= value < below."""
    return lambda name, value: check_number(name, value, least=least, below=below)


def whole_number(least: int) -> SettingCheck:
    """Return a check that a value is a whole number of at least `least`."""
    return lambda name, value: check_count(name, value, least=least)


def norm_order(name: str, value: Any) -> Any:
    """Return the value; raise `InputError` unless it is the order of a norm, from 1 to inf."""
    check_order(value)
    return value


def true_or_false(name: str, value: Any) -> Any:
    """Return the value; raise `InputError` unless it is True or False."""
    check_flag(name, value)
    return value


def one_of(*choices: str) -> SettingCheck:
    """Return a check that a value is one of the choices."""

    def check(name: str, value: Any) -> Any:
        check_choice(name, value, choices)
        return value

    return check


def none_or(check: SettingCheck, *others: str) -> SettingCheck:
    """Return a check that accepts None, the strings `others`, and all that `check` accepts."""
    return lambda name, value: value if value is None or value in others else check(name, value)
