"""Format numbers, changes, intervals, settings and mathematics as text for the pages."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from typing import Any

from markupsafe import Markup, escape

__all__ = [
    "MISSING",
    "NBSP",
    "compute_points_change",
    "compute_ratio",
    "count_decimals",
    "format_count",
    "format_duration",
    "format_factor",
    "format_interval",
    "format_number",
    "format_percent",
    "format_points_change",
    "format_ratio",
    "format_setting",
    "format_signed_points",
    "mark_up_math",
    "name_norm",
]

MISSING = "\N{EN DASH}"  # stands for a value that is None or not finite
MINUS_SIGN = "\N{MINUS SIGN}"
MULTIPLICATION_SIGN = "\N{MULTIPLICATION SIGN}"
NBSP = "\N{NO-BREAK SPACE}"
PERCENT_SIGN = f"{NBSP}%"


def format_number(value: float | None, digits: int = 3) -> str:
    """Format a number to `digits` significant digits without an exponent: 0.0123, 12.3, 1,230."""
    if value is None or not math.isfinite(value):
        return MISSING
    exponent = math.floor(math.log10(abs(value))) if value else 0
    decimals = min(max(digits - 1 - exponent, 0), 12) if value else 0
    return f"{value:,.{decimals}f}".replace("-", MINUS_SIGN)


def format_count(value: int) -> str:
    """Format a count with thousands separators, such as 10,000."""
    return f"{value:,}"


def format_percent(value: float | None, n: int | None) -> str:
    """Format a share of `n` examples as a percentage with `count_decimals(n)` decimals."""
    if value is None or not math.isfinite(value):
        return MISSING
    return f"{100 * value:.{count_decimals(n)}f}{PERCENT_SIGN}"


def count_decimals(n: int | None) -> int:
    """Return how many decimals to show in a percentage of `n` examples; None: unknown n."""
    return 2 if n is not None and n >= 2000 else 1


def compute_ratio(before: float | None, after: float | None) -> float:
    """Return `after` / `before`; NaN if either is None or `before` is 0."""
    return after / before if before and after is not None else math.nan


def format_ratio(ratio: float) -> str:
    """Format a ratio to three significant digits from 1 to 2, else to two: 2.6, 1.04, 0.95."""
    return format_number(ratio, 3 if 1 <= ratio < 2 else 2)


def format_factor(ratio: float | None) -> str:
    """Format a ratio as a factor, such as × 2.6."""
    if ratio is None or not math.isfinite(ratio):
        return MISSING
    return f"{MULTIPLICATION_SIGN} {format_ratio(ratio)}"


def compute_points_change(before: float | None, after: float | None, n: int | None) -> float:
    """Return the change of a fraction in percentage points; NaN if either fraction is missing.

    Both fractions are first rounded to the decimals that the page shows, so that the change equals
    the difference of the shown figures.
    """
    decimals = count_decimals(n)
    old, new = (math.nan if end is None else round(100 * end, decimals) for end in (before, after))
    return round(new - old, decimals)


def format_points_change(points: float | None, n: int | None) -> str:
    """Format a change in percentage points: "+1.2 points", or "none" if it rounds to 0."""
    text = format_signed_points(points, n)
    if text == MISSING:
        return MISSING
    return f"{text} points" if text[0] in ("+", MINUS_SIGN) else "none"


def format_signed_points(value: float | None, n: int | None) -> str:
    """Format percentage points with a sign, such as +1.2; a value that rounds to 0 has no sign."""
    if value is None or not math.isfinite(value):
        return MISSING
    text = f"{value:+.{count_decimals(n)}f}"
    return (text if float(text) else text[1:]).replace("-", MINUS_SIGN)


def format_interval(interval: Sequence[float | None] | None, write: Callable[[float], str]) -> str:
    """Format an interval as "low to high"; `write` formats each end.

    Return "" if the interval or either end is missing.
    """
    low, high = interval or (None, None)
    if low is None or high is None:
        return ""
    return f"{write(low).removesuffix(PERCENT_SIGN)} to {write(high)}"


def format_duration(seconds: float | None) -> str:
    """Format a duration, by its length, as minutes and seconds, as seconds or as milliseconds."""
    if seconds is None or not math.isfinite(seconds):
        return MISSING
    if seconds >= 60:
        whole = round(seconds)
        return f"{whole // 60:,}{NBSP}min {whole % 60}{NBSP}s"
    if seconds >= 1:
        return f"{format_number(seconds)}{NBSP}s"
    return f"{format_number(1000 * seconds)}{NBSP}ms"


def format_setting(value: Any, grouped: bool = False) -> str:
    """Format the value of a setting for readers, such as none, yes, 0.5 or 1 × 28 × 28.

    If `grouped`, whole numbers get thousands separators, such as 10,000.
    """
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}" if grouped else str(value)
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, Sequence) and not isinstance(value, str):
        has_text = any(isinstance(part, str) for part in value)
        separator = ", " if has_text else f" {MULTIPLICATION_SIGN} "
        return separator.join(format_setting(part) for part in value)
    return str(value)


def name_norm(p: float) -> str:
    """Return the name of the norm of order `p`, such as l2 or linf."""
    return f"l{p:g}"


def mark_up_math(text: str) -> Markup:
    """Return a text as HTML in which names such as rho_2 and l2 are set as mathematics."""
    html = re.sub(r"\brho_(\d+(?:\.\d+)?|inf)\b", r"<i>&rho;</i><sub>\1</sub>", str(escape(text)))
    html = re.sub(r"\bl(\d+(?:\.\d+)?|inf)\b", r"<i>&ell;</i><sub>\1</sub>", html)
    return Markup(html.replace("<sub>inf</sub>", "<sub>∞</sub>"))
