"""What came of the run, in words and figures: what the page and a terminal both say."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

from deepdefense.app.pages.wording import (
    compute_points_change,
    compute_ratio,
    format_factor,
    format_number,
    format_percent,
    format_points_change,
    format_ratio,
    format_value,
)

__all__ = [
    "GRAVE_ACCURACY_FALL",
    "NEGLIGIBLE_CHANGE",
    "ComparisonRow",
    "Verdict",
    "judge_hardening",
    "list_measures",
    "make_ratio_row",
    "tabulate_comparison",
]

NEGLIGIBLE_CHANGE = 0.02  # a smaller relative change of rho is called no change


GRAVE_ACCURACY_FALL = 5.0  # points of accuracy: a larger fall is the first thing to say


class Verdict(NamedTuple):
    """The result in plain words; `tone` is how good the news is."""

    headline: str
    sentence: str
    tone: Literal["good", "mixed", "bad"]


class ComparisonRow(NamedTuple):
    """One line of the comparison."""

    label: str
    before: str
    after: str
    change: str


def judge_hardening(report: Mapping[str, Any]) -> Verdict:
    """What came of it, in plain words: bad news first."""
    before, after = report["before"], report["after"]
    names = list_measures(report)
    ratios = {key: compute_ratio(before.get(key), after.get(key)) for key in names}
    gain = ratios["rho_p" if "rho_p" in names else "rho_2"]
    points = _compute_points(report, "accuracy")
    parts = [_describe_change(name, before.get(key), after.get(key)) for key, name in names.items()]
    accuracy = [format_percent(side.get("accuracy"), side.get("n")) for side in (before, after)]
    parts.append(
        f"accuracy stayed at {accuracy[1]}"
        if points == 0
        else f"accuracy {'fell' if points < 0 else 'went'} from {accuracy[0]} to {accuracy[1]}"
    )
    sentence = "; ".join(parts) + "." + _doubt_rise(report)
    if report.get("stopped"):
        return Verdict("The run stopped early", f"Where it stopped: {sentence}", "bad")
    if not report["history"]:
        return Verdict("No epoch was run, so nothing was hardened", sentence, "mixed")
    if points < -GRAVE_ACCURACY_FALL:
        return Verdict(f"Accuracy fell by {-points:g} points", sentence, "bad")
    if not math.isfinite(gain):
        return Verdict("The change in robustness could not be measured", sentence, "bad")
    if gain < 1 - NEGLIGIBLE_CHANGE:
        return Verdict("Less robust than before", sentence, "bad")
    if gain < 1 + NEGLIGIBLE_CHANGE:
        return Verdict("Robustness hardly changed", sentence, "mixed")
    if points < 0:
        return Verdict("More robust to DeepFool, but less accurate", sentence, "mixed")
    kept = ", and more accurate" if points > 0 else ", and no less accurate" if points == 0 else ""
    tone: Literal["good", "mixed"] = "good" if kept and not _doubt_rise(report) else "mixed"
    return Verdict(f"More robust to DeepFool{kept}", sentence, tone)


def tabulate_comparison(report: Mapping[str, Any]) -> list[ComparisonRow]:
    """The measures before and after, and how they changed."""
    before, after = report["before"], report["after"]

    def ratio(label: str, key: str) -> ComparisonRow:
        return make_ratio_row(label, before.get(key), after.get(key))

    rows = [_make_share_row("Accuracy", report, "accuracy")]
    for key, name in sorted(list_measures(report).items()):
        rows.append(ratio(f"{name}, mean", key))
        if f"{key}_median" in before:
            rows.append(ratio(f"{name}, median", f"{key}_median"))
    rows.append(_make_share_row("Examples DeepFool fools", report, "success"))
    rows.append(ratio("DeepFool iterations, mean", "iterations_mean"))
    counts = [format_value(side.get("n"), grouped=True) for side in (before, after)]
    return [*rows, ComparisonRow("Held-out examples", counts[0], counts[1], "")]


def make_ratio_row(label: str, before: float | None, after: float | None) -> ComparisonRow:
    """A line whose change is a ratio."""
    return ComparisonRow(
        label,
        format_number(before),
        format_number(after),
        format_factor(compute_ratio(before, after)),
    )


def _make_share_row(label: str, report: Mapping[str, Any], key: str) -> ComparisonRow:
    """A line whose change is in percentage points."""
    before, after = (report[side] for side in ("before", "after"))
    return ComparisonRow(
        label,
        format_percent(before.get(key), before.get("n")),
        format_percent(after.get(key), after.get("n")),
        format_points_change(_compute_points(report, key), before.get("n")),
    )


def list_measures(report: Mapping[str, Any]) -> dict[str, str]:
    """The measures of robustness and their names, the one trained for first."""
    if "rho_p" not in report["after"]:
        return {"rho_2": "rho_2"}
    order = float(report["config"].get("p", 2))
    return {"rho_p": f"rho_{order:g}", "rho_2": "rho_2"}


def _compute_points(report: Mapping[str, Any], key: str) -> float:
    """The change of a fraction in percentage points."""
    before, after = report["before"], report["after"]
    return compute_points_change(before.get(key), after.get(key), before.get("n"))


def _describe_change(name: str, before: float | None, after: float | None) -> str:
    old, new = format_number(before), format_number(after)
    ratio = compute_ratio(before, after)
    if not math.isfinite(ratio):
        return f"{name} cannot be compared (before: {old}, after: {new})"
    if old == new:
        return f"{name} stayed at {new}"
    moved = "rose" if ratio > 1 else "fell"
    return f"{name} {moved} from {old} to {new} ({format_ratio(ratio)} times)"


def _doubt_rise(report: Mapping[str, Any]) -> str:
    """What to doubt where DeepFool itself fails more often than before."""
    old, new = (report[side].get("success") for side in ("before", "after"))
    if old is None or new is None or old - new < 0.01:
        return ""
    failed = [format_percent(1 - value, report["after"].get("n")) for value in (old, new)]
    return (
        f" But DeepFool now fails on {failed[1]} of the examples (before: {failed[0]}), so that"
        " part of any rise may be the attack failing, not the network holding."
    )
