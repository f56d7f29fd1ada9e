"""Put the result of a hardening run into words, for the top of its page and the terminal."""

from __future__ import annotations

import math

from deepdefense.app.pages.hardening_tables import RhoMeasure, list_rho_measures
from deepdefense.app.pages.headline import GRAVE_ACCURACY_FALL, Verdict
from deepdefense.app.pages.wording import (
    compute_ratio,
    format_number,
    format_percent,
    format_ratio,
)
from deepdefense.training.report import HardeningReport

__all__ = ["judge_hardening"]

ARROW = "\N{RIGHTWARDS ARROW}"


def judge_hardening(report: HardeningReport) -> Verdict:
    """Return the verdict on a hardening run. A bad finding, if any, becomes the headline."""
    verdict, doubt = report.verdict, _doubt_gain(report)
    changes = "; ".join(map(_describe_rho_change, list_rho_measures(report)))
    figures = f"{_capitalise(verdict.distance_figures)}; accuracy {verdict.accuracy_figures}"
    sentence = (
        f"{figures.replace('->', ARROW)}. "
        f"By DeepFool alone, an upper bound that flatters hardened networks, {changes}.{doubt}"
    )
    if report.stopped:
        return Verdict("The run stopped early", f"Until then: {sentence}", "bad")
    if report.no_gain:
        reason = f"{_capitalise(report.no_gain)}."
        return Verdict("No gain: the given network is returned as it is", reason, "mixed")
    if not report.history:
        return Verdict(
            f"No {report.recipe.period_name} was run, so nothing was hardened", sentence, "mixed"
        )
    distance, accuracy = verdict.distance_change, verdict.accuracy_change
    # The worse of the two findings comes first.
    parts = [verdict.distance_headline, verdict.accuracy_headline]
    fall = 100 * (verdict.accuracy_before - verdict.accuracy_after)
    if accuracy == "less" and fall > GRAVE_ACCURACY_FALL:
        return Verdict(_capitalise("; ".join(reversed(parts))), sentence, "bad")
    headline = _capitalise("; ".join(parts))
    if distance == "less":
        return Verdict(headline, sentence, "bad")
    is_good = distance == "more" and accuracy != "less" and not doubt
    return Verdict(headline, sentence, "good" if is_good else "mixed")


def _capitalise(text: str) -> str:
    return text[:1].upper() + text[1:]


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
