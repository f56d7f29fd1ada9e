"""How the pages write numbers, spans of time and the signs of mathematics."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

from markupsafe import Markup, escape

__all__ = [
    "MISSING",
    "NBSP",
    "compute_points_change",
    "compute_ratio",
    "count_decimals",
    "format_duration",
    "format_factor",
    "format_number",
    "format_percent",
    "format_points_change",
    "format_ratio",
    "format_signed_points",
    "format_value",
    "mark_up_math",
]

MISSING = "\N{EN DASH}"


MINUS_SIGN = "\N{MINUS SIGN}"


MULTIPLICATION_SIGN = "\N{MULTIPLICATION SIGN}"


NBSP = "\N{NO-BREAK SPACE}"


def format_number(value: float | None, digits: int = 3) -> str:
    """To so many significant digits, never in powers of ten: 0.0123, 12.3, 1,230."""
    if value is None or not math.isfinite(value):
        return MISSING
    exponent = math.floor(math.log10(abs(value))) if value else 0
    return f"{value:,.{min(max(digits - 1 - exponent, 0), 12) if value else 0}f}".replace(
        "-", MINUS_SIGN
    )


def format_percent(value: float | None, n: int | None) -> str:
    """A fraction as a percentage, with the decimals that n examples carry."""
    if value is None or not math.isfinite(value):
        return MISSING
    return f"{100 * value:.{count_decimals(n)}f}{NBSP}%"


def format_ratio(ratio: float) -> str:
    """A ratio for reading: 2.6, 1.04, 0.95."""
    return format_number(ratio, 3 if 1 <= ratio < 2 else 2)


def compute_ratio(before: float | None, after: float | None) -> float:
    """How many times as large; NaN where that does not exist."""
    return after / before if before and after is not None else math.nan


def format_factor(ratio: float | None) -> str:
    """A change as a ratio."""
    return (
        MISSING
        if ratio is None or not math.isfinite(ratio)
        else f"{MULTIPLICATION_SIGN} {format_ratio(ratio)}"
    )


def compute_points_change(before: float | None, after: float | None, n: int | None) -> float:
    """The change of a fraction in percentage points, as between the two figures printed."""
    old, new = (
        math.nan if end is None else round(100 * end, count_decimals(n)) for end in (before, after)
    )
    return round(new - old, count_decimals(n))


def format_points_change(points: float | None, n: int | None) -> str:
    """A change in percentage points, with the decimals that n examples carry."""
    written = format_signed_points(points, n)
    if written == MISSING:
        return MISSING
    return f"{written} points" if written[0] in ("+", MINUS_SIGN) else "none"


def format_signed_points(value: float | None, n: int | None) -> str:
    """A number of percentage points with its sign; what rounds to nothing has none."""
    if value is None or not math.isfinite(value):
        return MISSING
    written = f"{value:+.{count_decimals(n)}f}"
    return (written if float(written) else written[1:]).replace("-", MINUS_SIGN)


def format_value(value: Any, grouped: bool = False) -> str:
    """A value of a setting, as a reader would write it; grouped: counts as 10,000."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}" if grouped else str(value)
    if isinstance(value, float):
        return "∞" if value == math.inf else f"{value:g}"
    if isinstance(value, Sequence) and not isinstance(value, str):
        named = any(isinstance(part, str) for part in value)
        return (", " if named else f" {MULTIPLICATION_SIGN} ").join(
            format_value(part) for part in value
        )
    return str(value)


def mark_up_math(text: str) -> Markup:
    """Escaped text in which rho_2, l2 and their like are set as mathematics."""
    marked = re.sub(r"\brho_(\d+(?:\.\d+)?|inf)\b", r"<i>&rho;</i><sub>\1</sub>", str(escape(text)))
    marked = re.sub(r"\bl(\d+(?:\.\d+)?|inf)\b", r"<i>&ell;</i><sub>\1</sub>", marked)
    return Markup(marked.replace("<sub>inf</sub>", "<sub>∞</sub>"))


def format_duration(seconds: float | None) -> str:
    """A time span in the unit that suits it."""
    if seconds is None or not math.isfinite(seconds):
        return MISSING
    if seconds >= 60:
        whole = round(seconds)
        return f"{whole // 60:,}{NBSP}min {whole % 60}{NBSP}s"
    return (
        f"{format_number(seconds)}{NBSP}s"
        if seconds >= 1
        else f"{format_number(1000 * seconds)}{NBSP}ms"
    )


def count_decimals(n: int | None) -> int:
    """How many decimals of a percentage n examples carry."""
    return 2 if n is not None and n >= 2000 else 1
