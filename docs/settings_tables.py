"""Format the tables of docs/settings.md from the fields declared with `setting`.

docs/results.py writes these tables into the page.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from markdown_tables import format_table

from deepdefense.app.jobs.defaults import describe_default, format_default
from deepdefense.app.jobs.settings import (
    EVALUATE,
    HARDEN,
    REPRODUCE,
    Panels,
)
from deepdefense.defenses import baselines
from deepdefense.seam.settings import Setting, list_settings


def format_options(panels: Panels) -> str:
    """Return the table of the command-line options of one command."""
    rows = [
        (
            title,
            f"`--{setting.name.replace('_', '-')}`",
            describe_default(panels, setting),
            setting.help,
        )
        for title, kinds in panels.items()
        for kind in kinds
        for setting in list_settings(kind)
        if setting.option
    ]
    return format_table(("group", "option", "default", "meaning"), rows)


def format_fields(kinds: Iterable[type], keep: Callable[[Setting], bool]) -> str:
    """Return the table of the fields of these classes for which `keep` returns True."""
    rows = [
        (f"`{kind.__name__}`", f"`{setting.name}`", format_default(setting), setting.help)
        for kind in kinds
        for setting in list_settings(kind)
        if keep(setting)
    ]
    return format_table(("class", "field", "default", "meaning"), rows)


def list_harden_classes() -> Iterator[type]:
    """Yield the classes whose fields are the settings of the command `harden`."""
    for kinds in HARDEN.values():
        yield from kinds


SETTINGS_TABLES: dict[str, Callable[[], str]] = {
    "harden": lambda: format_options(HARDEN),
    "library": lambda: format_fields(list_harden_classes(), lambda setting: not setting.option),
    "evaluate": lambda: format_options(EVALUATE),
    "reproduce": lambda: format_options(REPRODUCE),
    "baselines": lambda: format_fields(
        (getattr(baselines, name) for name in baselines.__all__), lambda setting: True
    ),
}
