"""What came of the run, in words and figures: what the page and a terminal both say."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

from markupsafe import Markup, escape

__all__ = [
    "Row",
    "Verdict",
    "compare",
    "judge",
    "measures",
    "number",
    "percent",
    "ratio_row",
    "setting",
    "symbols",
]

MISSING = "\N{EN DASH}"
MINUS = "\N{MINUS SIGN}"
TIMES = "\N{MULTIPLICATION SIGN}"
NBSP = "\N{NO-BREAK SPACE}"
HARDLY = 0.02  # a smaller relative change of rho is called no change
COLLAPSE = 5.0  # points of accuracy: a larger fall is the first thing to say


class Verdict(NamedTuple):
    """The result in plain words; `tone` is how good the news is."""

    headline: str
    sentence: str
    tone: Literal["good", "mixed", "bad"]


class Row(NamedTuple):
    """One line of the comparison."""

    label: str
    before: str
    after: str
    change: str


def judge(report: Mapping[str, Any]) -> Verdict:
    """What came of it, in plain words: bad news first."""
    before, after = report["before"], report["after"]
    names = measures(report)
    ratios = {key: _ratio(before.get(key), after.get(key)) for key in names}
    gain = ratios["rho_p" if "rho_p" in names else "rho_2"]
    points = _points(report, "accuracy")
    parts = [_moved(name, before.get(key), after.get(key)) for key, name in names.items()]
    accuracy = [percent(side.get("accuracy"), side.get("n")) for side in (before, after)]
    parts.append(
        f"accuracy stayed at {accuracy[1]}"
        if points == 0
        else f"accuracy {'fell' if points < 0 else 'went'} from {accuracy[0]} to {accuracy[1]}"
    )
    sentence = "; ".join(parts) + "." + _caveat(report)
    if report.get("stopped"):
        return Verdict("The run stopped early", f"Where it stopped: {sentence}", "bad")
    if not report["history"]:
        return Verdict("No epoch was run, so nothing was hardened", sentence, "mixed")
    if points < -COLLAPSE:
        return Verdict(f"Accuracy fell by {-points:g} points", sentence, "bad")
    if not math.isfinite(gain):
        return Verdict("The change in robustness could not be measured", sentence, "bad")
    if gain < 1 - HARDLY:
        return Verdict("Less robust than before", sentence, "bad")
    if gain < 1 + HARDLY:
        return Verdict("Robustness hardly changed", sentence, "mixed")
    if points < 0:
        return Verdict("More robust to DeepFool, but less accurate", sentence, "mixed")
    kept = ", and more accurate" if points > 0 else ", and no less accurate" if points == 0 else ""
    tone: Literal["good", "mixed"] = "good" if kept and not _caveat(report) else "mixed"
    return Verdict(f"More robust to DeepFool{kept}", sentence, tone)


def compare(report: Mapping[str, Any]) -> list[Row]:
    """The measures before and after, and how they changed."""
    before, after = report["before"], report["after"]

    def ratio(label: str, key: str) -> Row:
        return ratio_row(label, before.get(key), after.get(key))

    rows = [_share_row("Accuracy", report, "accuracy")]
    for key, name in sorted(measures(report).items()):
        rows.append(ratio(f"{name}, mean", key))
        if f"{key}_median" in before:
            rows.append(ratio(f"{name}, median", f"{key}_median"))
    rows.append(_share_row("Examples DeepFool fools", report, "success"))
    rows.append(ratio("DeepFool iterations, mean", "iterations_mean"))
    counts = [setting(side.get("n"), grouped=True) for side in (before, after)]
    return [*rows, Row("Held-out examples", counts[0], counts[1], "")]


def ratio_row(label: str, before: float | None, after: float | None) -> Row:
    """A line whose change is a ratio."""
    ratio = _ratio(before, after)
    change = f"{TIMES} {times(ratio)}" if math.isfinite(ratio) else MISSING
    return Row(label, number(before), number(after), change)


def number(value: float | None, digits: int = 3) -> str:
    """To so many significant digits, never in powers of ten: 0.0123, 12.3, 1,230."""
    if value is None or not math.isfinite(value):
        return MISSING
    exponent = math.floor(math.log10(abs(value))) if value else 0
    return f"{value:,.{min(max(digits - 1 - exponent, 0), 12) if value else 0}f}".replace(
        "-", MINUS
    )


def percent(value: float | None, n: int | None) -> str:
    """A fraction as a percentage, with the decimals that n examples carry."""
    if value is None or not math.isfinite(value):
        return MISSING
    return f"{100 * value:.{_places(n)}f}{NBSP}%"


def times(ratio: float) -> str:
    """A ratio for reading: 2.6, 1.04, 0.95."""
    return number(ratio, 3 if 1 <= ratio < 2 else 2)


def setting(value: Any, grouped: bool = False) -> str:
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
        return f" {TIMES} ".join(setting(part) for part in value)
    return str(value)


def symbols(text: str) -> Markup:
    """Escaped text in which rho_2 and its like are set as mathematics."""
    marked = re.sub(r"\brho_(\d+(?:\.\d+)?|inf)\b", r"<i>&rho;</i><sub>\1</sub>", str(escape(text)))
    return Markup(marked.replace("<sub>inf</sub>", "<sub>∞</sub>"))


def _share_row(label: str, report: Mapping[str, Any], key: str) -> Row:
    """A line whose change is in percentage points."""
    before, after = (report[side] for side in ("before", "after"))
    points = _points(report, key)
    change = f"{points:+.{_places(before.get('n'))}f} points".replace("-", MINUS)
    return Row(
        label,
        percent(before.get(key), before.get("n")),
        percent(after.get(key), after.get("n")),
        "none" if points == 0 else change if math.isfinite(points) else MISSING,
    )


def measures(report: Mapping[str, Any]) -> dict[str, str]:
    """The measures of robustness and their names, the one trained for first."""
    if "rho_p" not in report["after"]:
        return {"rho_2": "rho_2"}
    order = float(report["config"]["p"])
    return {"rho_p": f"rho_{order:g}", "rho_2": "rho_2"}


def _ratio(before: float | None, after: float | None) -> float:
    return after / before if before and after is not None else math.nan


def _places(n: int | None) -> int:
    return 2 if n is not None and n >= 2000 else 1


def _points(report: Mapping[str, Any], key: str) -> float:
    """The change of a fraction in percentage points, as between the two figures printed."""
    ends = [report[side].get(key) for side in ("before", "after")]
    places = _places(report["before"].get("n"))
    before, after = (math.nan if end is None else round(100 * end, places) for end in ends)
    return round(after - before, places)


def _moved(name: str, before: float | None, after: float | None) -> str:
    old, new = number(before), number(after)
    ratio = _ratio(before, after)
    if not math.isfinite(ratio):
        return f"{name} cannot be compared (before: {old}, after: {new})"
    if old == new:
        return f"{name} stayed at {new}"
    return f"{name} {'rose' if ratio > 1 else 'fell'} from {old} to {new} ({times(ratio)} times)"


def _caveat(report: Mapping[str, Any]) -> str:
    """What to doubt where DeepFool itself fails more often than before."""
    old, new = (report[side].get("success") for side in ("before", "after"))
    if old is None or new is None or old - new < 0.01:
        return ""
    failed = [percent(1 - value, report["after"].get("n")) for value in (old, new)]
    return (
        f" But DeepFool now fails on {failed[1]} of the examples (before: {failed[0]}), so that"
        " part of any rise may be the attack failing, not the network holding."
    )
