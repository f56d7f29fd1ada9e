"""Put the result of an evaluation into words, for the top of its page and for the terminal."""

from __future__ import annotations

import math

from deepdefense.app.pages.headline import GRAVE_ACCURACY_FALL, NEGLIGIBLE_CHANGE, Tone, Verdict
from deepdefense.app.pages.wording import (
    NBSP,
    compute_points_change,
    format_interval,
    format_number,
    format_percent,
    format_points_change,
    format_ratio,
    format_signed_points,
    name_norm,
)
from deepdefense.evaluation.checks import find_severe_failure
from deepdefense.evaluation.report import Report

__all__ = ["explain_withholding", "format_radius", "judge_evaluation"]


def judge_evaluation(report: Report) -> Verdict:
    """Return the verdict on an evaluation. A bad finding, if there is one, becomes the headline."""
    reason = explain_withholding(report)
    if reason is not None:
        return _refuse_verdict(report, reason)
    n, wrong, censored = report.n, report.distance.wrong, report.distance.censored
    parts = (_describe_accuracy(report), _describe_comparison(report), _describe_checks(report))
    sentence = " ".join(part for part in parts if part)
    if wrong >= n:
        return Verdict("Every example is misclassified without an attack", sentence, "bad")
    if censored >= n:
        doubt = "No attack worked even once, which speaks against the attacks, not for the network."
        return Verdict("No attack fooled any example", f"{doubt} {sentence}", "bad")
    median = report.headline.distance_median
    tone: Tone = "good" if _all_checks_pass(report) else "mixed"
    if median is None:
        headline, tone = "No attack fooled more than half of the examples", "mixed"
    elif 2 * wrong >= n:
        headline = "At least half of the examples are misclassified without an attack"
        tone = "mixed"
    else:
        size = f"{format_number(median)} ({name_norm(report.threat.p)})"
        headline = f"Half of the examples are fooled within {size}"
    ratio = None if report.comparison is None else report.comparison.median_ratio
    if ratio is not None and ratio < 1 - NEGLIGIBLE_CHANGE:
        worse = "Easier to fool than the undefended network"
        return Verdict(worse, f"{headline}. {sentence}", "bad")
    points = _compute_accuracy_change(report)
    if points < -GRAVE_ACCURACY_FALL:
        fall = format_signed_points(-points, n).removeprefix("+")
        return Verdict(f"Accuracy fell by {fall} points", f"{headline}. {sentence}", "bad")
    return Verdict(headline, sentence, tone)


def explain_withholding(report: Report) -> str | None:
    """Return why the page withholds the robustness figures; None if it shows them."""
    reason, failing = report.headline.withheld, find_severe_failure(report.checks)
    if reason or failing is None:
        return reason
    return f"The check “{failing.name}” fails."


def format_radius(report: Report) -> str:
    """Return the norm and the budget eps that accuracy under attack refers to, such as "l2 1.5".

    Return "" if eps is not set.
    """
    eps = report.headline.eps
    return "" if eps is None else f"{name_norm(report.threat.p)}{NBSP}{eps:.3g}"


def _refuse_verdict(report: Report, reason: str) -> Verdict:
    """Return the verdict on an evaluation whose robustness figures are withheld for `reason`."""
    failing = find_severe_failure(report.checks)
    if failing is None:
        headline = "The figures of robustness are not to be trusted"
        parts = ["They are withheld.", _make_sentence(reason)]
    else:
        headline = f"Not to be trusted: {failing.name.replace('_', ' ')}"
        parts = ["The figures of robustness are withheld.", _make_sentence(reason)]
        if failing.evidence.strip(". ") not in reason:
            parts.append(_make_sentence(failing.evidence))
        parts.append(f"What to do: {_make_sentence(failing.remedy)}")
    return Verdict(headline, " ".join([*parts, _describe_accuracy(report, robust=False)]), "bad")


def _describe_accuracy(report: Report, robust: bool = True) -> str:
    """Return a sentence on accuracy, with its confidence interval.

    If `robust`, the sentence also states accuracy under attack, where the report has it.
    """
    n, intervals, headline = report.n, report.intervals, report.headline

    def describe(value: float, name: str, prefix: str = "") -> str:
        interval = format_interval(intervals.get(name), lambda end: format_percent(end, n))
        return format_percent(value, n) + (f" ({prefix}{interval})" if interval else "")

    sentence = f"Accuracy is {describe(report.accuracy, 'accuracy', '95 % interval ')}"
    if robust and headline.robust_accuracy is not None and headline.eps is not None:
        attacked = describe(headline.robust_accuracy, "robust_accuracy")
        sentence += f"; under the attacks tried, within {format_radius(report)}, it is {attacked}"
    return f"{sentence}."


def _describe_comparison(report: Report) -> str:
    """Return a sentence that compares this network with the undefended reference network.

    Return "" if the report has no comparison.
    """
    comparison = report.comparison
    if comparison is None:
        return ""
    ratio, points, parts = comparison.median_ratio, _compute_accuracy_change(report), []
    if ratio is not None:
        interval = format_interval(comparison.interval, format_ratio)
        growth = f"the median distance is {format_ratio(ratio)} times as large"
        parts.append(f"{growth} ({interval})" if interval else growth)
    if math.isfinite(points):
        change = format_points_change(points, report.n)
        parts.append(
            "accuracy is the same" if change == "none" else f"accuracy changed by {change}"
        )
    if not parts:
        return "It cannot be compared with the undefended network."
    return f"Compared with the undefended network, {' and '.join(parts)}."


def _compute_accuracy_change(report: Report) -> float:
    """Return this network's accuracy minus the reference network's, in percentage points.

    Return NaN if the report has no reference network.
    """
    before = None if report.reference is None else report.reference.accuracy
    return compute_points_change(before, report.accuracy, report.n)


def _describe_checks(report: Report) -> str:
    """Return a sentence that counts the checks and names the checks that fail or warn."""
    total = len(report.checks)
    if not total:
        return "No check was run."
    if _all_checks_pass(report):
        return f"All {total} checks pass." if total > 1 else "The one check passes."
    parts = []
    for status in ("fail", "warn"):
        names = [check.name.replace("_", " ") for check in report.checks if check.status == status]
        if names:
            verb = f"{status}s" if len(names) == 1 else status
            parts.append(f"{len(names)} {verb} ({', '.join(names)})")
    return f"Of {total} checks {' and '.join(parts)}."


def _all_checks_pass(report: Report) -> bool:
    """Return whether at least one check was run and all checks pass."""
    return bool(report.checks) and all(check.status == "pass" for check in report.checks)


def _make_sentence(text: str) -> str:
    """Return the text with a capital first letter and a full stop."""
    text = text.strip()
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", "!", "?")) else ".")
