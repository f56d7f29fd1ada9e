"""Fill in the Jinja2 templates of the pages.

All templates share style.css and the filters that this module defines, such as `percent`.
"""

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
    """Return the page that a template makes of `content`; text is escaped for HTML.

    Raises `jinja2.UndefinedError` if the template uses a variable that `content` does not define.
    """
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
