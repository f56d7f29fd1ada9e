"""How a page is filled in: the templates share base.html.j2, style.css and these filters."""

from __future__ import annotations

from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from deepdefense.app.pages.wording import duration, number, percent, setting, symbols

__all__ = ["fill"]


def fill(template: str, **content: Any) -> str:
    """The page of a template; all that it names must be there, and text is escaped."""
    environment = Environment(
        loader=PackageLoader("deepdefense", "app/pages"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "number": number,
        "percent": percent,
        "setting": setting,
        "symbols": symbols,
        "duration": duration,
    }
    return environment.get_template(template).render(content)
