"""Put the result of a hardening run into words, for the top of its page and the terminal."""

from __future__ import annotations

import math

from deepdefense.app.pages.hardening_tables import RhoMeasure, list_rho_measures
from deepdefense.app.pages.headline import GRAVE_ACCURACY_FALL, NEGLIGIBLE_CHANGE, Verdict
from deepdefense.app.pages.wording import (
    compute_points_change,
    compute_ratio,
    format_number,
    format_percent,
    format_ratio,
)
from deepdefense.training.report import HardeningReport

__all__ = ["judge_hardening"]


def judge_hardening(report: HardeningReport) -> Verdict:
    """Return the verdict on a hardening run. A bad finding, if any, becomes the headline."""
    before, after = report.before, report.after
    measures = list_rho_measures(report)
    gain = compute_ratio(measures[0].before, measures[0].after)
    points = compute_points_change(before.accuracy, after.accuracy, before.n)
    doubt = _doubt_gain(report)
    parts = [*map(_describe_rho_change, measures), _describe_accuracy_change(report, points)]
    sentence = "; ".join(parts) + "." + doubt
    if report.stopped:
        return Verdict("The run stopped early", f"Until then: {sentence}", "bad")
    if not report.history:
        return Verdict(
            f"No {report.recipe.period_name} was run, so nothing was hardened", sentence, "mixed"
        )
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
    accuracy = "more accurate" if points > 0 else "no less accurate"
    return Verdict(
        f"More robust to DeepFool, and {accuracy}", sentence, "mixed" if doubt else "good"
    )


def _describe_rho_change(measure: RhoMeasure) -> str:
    """Return a clause on mean rho, such as "rho_2 rose from 0.2 to 0.4 (2.0 times)"."""
    before, after = format_number(measure.before), format_number(measure.after)
    ratio = compute_ratio(measure.before, measure.after)
    if not math.isfinite(ratio):
        return f"{measure.name} cannot be compared (before: {before}, after: {after})"
    if before == after:
        return f"{measure.name} stayed at {after}"
    verb = "rose" if ratio > 1 else "fell"
    return f"{measure.name} {verb} from {before} to {after} ({format_ratio(ratio)} times)"


def _describe_accuracy_change(report: HardeningReport, points: float) -> str:
    """Return a clause on how accuracy changed, by `points` percentage points."""
    before, after = (
        format_percent(summary.accuracy, summary.n) for summary in (report.before, report.after)
    )
    if points == 0:
        return f"accuracy stayed at {after}"
    return f"accuracy {'fell' if points < 0 else 'rose'} from {before} to {after}"


def _doubt_gain(report: HardeningReport) -> str:
    """Return a caveat if DeepFool's success rate fell by at least 0.01; otherwise ""."""
    before, after = report.before, report.after
    if not before.success - after.success >= 0.01:
        return ""
    failures_before, failures_after = (
        format_percent(1 - summary.success, after.n) for summary in (before, after)
    )
    return (
        f" But DeepFool now fails on {failures_after} of the examples (before: {failures_before}),"
        " so part of any rise may come from the failing attack, not from a more robust network."
    )
