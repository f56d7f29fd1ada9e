"""Make the options of the command line from declared settings."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from typing import Annotated, TypeVar, get_type_hints

from cyclopts import Group, Parameter

from deepdefense.app.jobs.defaults import describe_default
from deepdefense.app.jobs.settings import EVALUATE, HARDEN, REPRODUCE, Panels
from deepdefense.seam.settings import Setting, list_settings

__all__ = ["option", "switch", "with_options"]

Command = TypeVar("Command", bound=Callable[..., int])

# The panels into which the help groups the options, keyed by title, in the order shown.
PANELS = {
    title: Group(title, sort_key=position)
    for position, title in enumerate([*{**REPRODUCE, **HARDEN, **EVALUATE}, "Run"])
}


def option(text: str, panel: str = "Run") -> Parameter:
    """Declare an option that takes a value, by its help text and the help panel that lists it."""
    return Parameter(help=text, group=PANELS[panel])


def switch(text: str, panel: str = "Run") -> Parameter:
    """Declare an option that takes no value and is off unless given, such as --resume."""
    return Parameter(help=text, group=PANELS[panel], negative="", show_default=False)


def with_options(panels: Panels) -> Callable[[Command], Command]:
    """Return a decorator that gives a command an option for each setting declared in `panels`.

    The command receives in its parameter `**options` only the options that the user gave.
    """

    def decorate(command: Command) -> Command:
        signature = inspect.signature(command)
        hints = get_type_hints(command, include_extras=True)
        own = [
            parameter
            for parameter in signature.parameters.values()
            if parameter.kind is not inspect.Parameter.VAR_KEYWORD
        ]
        options = list(_make_parameters(panels))
        annotations = {parameter.name: hints[parameter.name] for parameter in own}
        annotations |= {parameter.name: parameter.annotation for parameter in options}
        parameters = sorted([*own, *options], key=lambda parameter: parameter.kind)
        # `cyclopts` reads a command's options from its signature and annotations.
        vars(command)["__signature__"] = signature.replace(parameters=parameters)
        command.__annotations__ = {**annotations, "return": int}
        return command

    return decorate


def _make_parameters(panels: Panels) -> Iterator[inspect.Parameter]:
    """Yield a function parameter for each declared setting that is a command-line option."""
    for title, kinds in panels.items():
        for declared in (declared for kind in kinds for declared in list_settings(kind)):
            if declared.option:
                parameter = _make_option(declared, title, describe_default(panels, declared))
                yield inspect.Parameter(
                    declared.name,
                    inspect.Parameter.KEYWORD_ONLY,
                    default=declared.default,
                    annotation=Annotated[declared.type, parameter],
                )


def _make_option(declared: Setting, title: str, default: str) -> Parameter:
    text = f"{declared.help[0].upper()}{declared.help[1:]}."
    if declared.type is bool:
        return switch(text, title)
    return Parameter(
        help=text,
        group=PANELS[title],
        negative="",
        consume_multiple=isinstance(declared.default, tuple),
        show_default=lambda _: default,
    )
