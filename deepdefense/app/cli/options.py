"""Options of the command line, made from declared settings."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from typing import Annotated, TypeVar, get_type_hints

from cyclopts import Group, Parameter

from deepdefense.app.jobs.settings import EVALUATE, HARDEN, REPRODUCE, Panels, describe_default
from deepdefense.seam.settings import Setting, list_settings

__all__ = ["option", "switch", "with_options"]

Command = TypeVar("Command", bound=Callable[..., int])


# The panels of the help, from top to bottom.
PANELS = {
    title: Group(title, sort_key=position)
    for position, title in enumerate([*{**REPRODUCE, **HARDEN, **EVALUATE}, "Run"])
}


def option(text: str, panel: str = "Run") -> Parameter:
    """Return an option in a panel of the help."""
    return Parameter(help=text, group=PANELS[panel])


def switch(text: str, panel: str = "Run") -> Parameter:
    """Return an option without a value, which is off unless it is given."""
    return Parameter(help=text, group=PANELS[panel], negative="", show_default=False)


def with_options(panels: Panels) -> Callable[[Command], Command]:
    """Decorate a command: its `**options` become one option for each declared setting.

    The command receives those options that were given, by name.
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
        # What `cyclopts` reads.
        vars(command)["__signature__"] = signature.replace(parameters=parameters)
        command.__annotations__ = {**annotations, "return": int}
        return command

    return decorate


def _make_parameters(panels: Panels) -> Iterator[inspect.Parameter]:
    """Make a parameter for each setting that the command line has an option for."""
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
