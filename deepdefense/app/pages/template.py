"""How a page is filled in: the templates share base.html.j2, style.css and these filters."""

from __future__ import annotations

from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from deepdefense.app.pages.wording import (
    format_count,
    format_duration,
    format_number,
    format_percent,
    format_setting,
    mark_up_math,
)

__all__ = ["fill_template"]


def fill_template(template: str, **content: Any) -> str:
    """Return a template's page. A name that `content` lacks raises; text is escaped."""
    environment = Environment(
        loader=PackageLoader("deepdefense", "app/pages"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "count": format_count,
        "duration": format_duration,
        "math": mark_up_math,
        "number": format_number,
        "percent": format_percent,
        "setting": format_setting,
    }
    return environment.get_template(template).render(content)
