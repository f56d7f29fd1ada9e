"""What an evaluation came to, in words: what the page and a terminal both say."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from deepdefense.app.pages.hardening_headline import GRAVE_ACCURACY_FALL, NEGLIGIBLE_CHANGE, Verdict
from deepdefense.app.pages.wording import (
    NBSP,
    compute_points_change,
    format_number,
    format_percent,
    format_points_change,
    format_ratio,
    format_signed_points,
)

__all__ = [
    "explain_withholding",
    "format_interval",
    "format_radius",
    "judge_evaluation",
    "name_norm",
]

PERCENT_SIGN = f"{NBSP}%"


def judge_evaluation(report: Mapping[str, Any]) -> Verdict:
    """What came of it, in plain words: bad news first."""
    reason = explain_withholding(report)
    if reason is not None:
        return _refuse_verdict(report, reason)
    distance, n, size = report["distance"], report["n"], name_norm(report["threat"]["p"])
    wrong, censored = distance["wrong"] or 0, distance["censored"] or 0
    median = report["headline"]["distance_median"]
    sentence = " ".join(
        part
        for part in (
            _describe_accuracy(report),
            _describe_comparison(report),
            _describe_checks(report),
        )
        if part
    )
    if wrong >= n:
        return Verdict("Every example is misclassified without an attack", sentence, "bad")
    if censored >= n:
        doubt = "No attack worked even once: that speaks against the attacks, not for the network."
        return Verdict("No attack fooled any example", f"{doubt} {sentence}", "bad")
    ratio, points = (
        (report["comparison"] or {}).get("median_ratio"),
        _compute_accuracy_change(report),
    )
    tone: Literal["good", "mixed"] = "good" if _all_checks_pass(report) else "mixed"
    if median is None:
        headline, tone = "No attack fooled more than half of the examples", "mixed"
    elif 2 * wrong >= n:
        headline = "At least half of the examples are misclassified without an attack"
        tone = "mixed"
    else:
        headline = f"Half of the examples are fooled within {format_number(median)} ({size})"
    if ratio is not None and ratio < 1 - NEGLIGIBLE_CHANGE:
        worse = "Easier to fool than the undefended network"
        return Verdict(worse, f"{headline}. {sentence}", "bad")
    if points < -GRAVE_ACCURACY_FALL:
        fell = format_signed_points(-points, n).removeprefix("+")
        return Verdict(f"Accuracy fell by {fell} points", f"{headline}. {sentence}", "bad")
    return Verdict(headline, sentence, tone)


def explain_withholding(report: Mapping[str, Any]) -> str | None:
    """Why the figures of robustness are withheld; None where they are not."""
    reason: str | None = report["headline"]["withheld"]
    failing = _find_severe_failure(report)
    return reason if reason or failing is None else f"The check “{failing['name']}” fails."


def name_norm(p: float | str) -> str:
    """The name of a norm, as text: l2, linf."""
    order = float(p)
    return "linf" if order == math.inf else f"l{order:g}"


def format_radius(report: Mapping[str, Any]) -> str:
    """The size that accuracy under attack is given at, as text: l2 1.5; empty without one."""
    eps = report["headline"]["eps"]
    return "" if eps is None else f"{name_norm(report['threat']['p'])}{NBSP}{eps:.3g}"


def format_interval(interval: Sequence[float | None] | None, write: Callable[[float], str]) -> str:
    """An interval in words; empty where either end does not exist."""
    low, high = interval or (None, None)
    if low is None or high is None:
        return ""
    return f"{write(low).removesuffix(PERCENT_SIGN)} to {write(high)}"


def _refuse_verdict(report: Mapping[str, Any], reason: str) -> Verdict:
    failing = _find_severe_failure(report)
    headline = "The figures of robustness are not to be trusted"
    parts = ["They are withheld.", _make_sentence(reason)]
    if failing is not None:
        headline = f"Not to be trusted: {failing['name'].replace('_', ' ')}"
        parts[0] = "The figures of robustness are withheld."
        if failing["evidence"].strip(". ") not in reason:
            parts.append(_make_sentence(failing["evidence"]))
        parts.append(f"What to do: {_make_sentence(failing['remedy'])}")
    parts.append(_describe_accuracy(report, robust=False))
    return Verdict(headline, " ".join(parts), "bad")


def _describe_accuracy(report: Mapping[str, Any], robust: bool = True) -> str:
    n, spans, headline = report["n"], report["intervals"], report["headline"]

    def written(value: float | None, key: str, prefix: str = "") -> str:
        extent = format_interval(spans.get(key), lambda end: format_percent(end, n))
        return format_percent(value, n) + (f" ({prefix}{extent})" if extent else "")

    sentence = f"Accuracy is {written(report['accuracy'], 'accuracy', '95 % interval ')}"
    if robust and headline["robust_accuracy"] is not None and headline["eps"] is not None:
        size = format_radius(report)
        attacked = written(headline["robust_accuracy"], "robust_accuracy")
        sentence += f"; under the attacks tried, within {size}, it is {attacked}"
    return f"{sentence}."


def _describe_comparison(report: Mapping[str, Any]) -> str:
    """Against the undefended network, if there is one."""
    paired = report["comparison"]
    if paired is None:
        return ""
    ratio, points, parts = paired["median_ratio"], _compute_accuracy_change(report), []
    if ratio is not None:
        extent = format_interval(paired["interval"], format_ratio)
        grown = f"the median distance is {format_ratio(ratio)} times as large"
        parts.append(f"{grown} ({extent})" if extent else grown)
    if math.isfinite(points):
        moved = format_points_change(points, report["n"])
        parts.append("accuracy is the same" if moved == "none" else f"accuracy moved by {moved}")
    if not parts:
        return "It cannot be compared with the undefended network."
    return f"Against the undefended network {' and '.join(parts)}."


def _compute_accuracy_change(report: Mapping[str, Any]) -> float:
    """The change of accuracy from the undefended network's, if there is one."""
    before = (report["reference"] or {}).get("accuracy")
    return compute_points_change(before, report["accuracy"], report["n"])


def _describe_checks(report: Mapping[str, Any]) -> str:
    """How many checks there were, and which did not pass."""
    checks, total = report["checks"], len(report["checks"])
    if not checks:
        return "Nothing was checked."
    if _all_checks_pass(report):
        return f"All {total} checks pass." if total > 1 else "The one check passes."
    parts = []
    for status, verb in (("fail", "fail"), ("warn", "warn")):
        names = [check["name"].replace("_", " ") for check in checks if check["status"] == status]
        if names:
            parts.append(f"{len(names)} {verb}{'s' * (len(names) == 1)} ({', '.join(names)})")
    return f"Of {total} checks {' and '.join(parts)}."


def _all_checks_pass(report: Mapping[str, Any]) -> bool:
    return bool(report["checks"]) and all(c["status"] == "pass" for c in report["checks"])


def _find_severe_failure(report: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The first severe check that fails."""
    checks: Sequence[Mapping[str, Any]] = report["checks"]
    return next((c for c in checks if c["status"] == "fail" and c["severe"]), None)


def _make_sentence(text: str) -> str:
    """A text with a capital and a full stop."""
    text = text.strip()
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", "!", "?")) else ".")
