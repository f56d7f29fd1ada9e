"""Tests of the page about an evaluation: its verdict, its content, and withheld figures."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest

from deepdefense.app.pages import WeakestExamples, judge_evaluation, render_evaluation
from deepdefense.evaluation.provenance import NetworkInfo
from deepdefense.evaluation.report import Headline, Report, Threat
from deepdefense.evaluation.statistics import Comparison, Curve
from deepdefense.seam.frozen_dict import FrozenDict
from evaluation_reports import (
    HARD,
    PLAIN,
    Array,
    N,
    draw_distances,
    make_attack_line,
    make_check,
    make_comparison_report,
    make_minima,
    make_report,
    make_weakest,
    make_withheld_report,
)

MINUS, TIMES = "\N{MINUS SIGN}", "\N{MULTIPLICATION SIGN}"
NO_ATTACK_WORKED, ALL_WRONG = np.full(N, np.inf), np.zeros(N)
WARNED = (
    make_check("logits"),
    make_check("restarts", "warn"),
    make_check("transfer", "fail", severe=False),
)
WORSE = Comparison(0.8, (0.7, 0.9), 0.1, 0.0, (-0.01, 0.01))


def render(content: Report, gallery: WeakestExamples | None = None) -> str:
    return render_evaluation(content, gallery=gallery)


@pytest.mark.parametrize(
    ("content", "headline", "tone"),
    [
        (make_report(HARD), "Half of the examples are fooled within 1.58 (l2)", "good"),
        (make_report(HARD, PLAIN), "Half of the examples are fooled within 1.58 (l2)", "good"),
        (
            make_report(HARD, threat=Threat(float("inf"), "0 to 1")),
            "Half of the examples are fooled within 1.58 (linf)",
            "good",
        ),
        (make_report(HARD, checks=WARNED), "Half of the examples are fooled within", "mixed"),
        (make_report(HARD, checks=()), "Half of the examples are fooled within", "mixed"),
        (make_report(HARD, PLAIN, comparison=WORSE), "Easier to fool than the undefended", "bad"),
        (make_withheld_report(), "Not to be trusted: zero gradient", "bad"),
        (
            make_withheld_report(withheld=None, distance_median=1.5),
            "Not to be trusted: zero gradient",
            "bad",
        ),
        (
            replace(make_withheld_report(), checks=()),
            "The figures of robustness are not to be trusted",
            "bad",
        ),
        (make_report(NO_ATTACK_WORKED), "No attack fooled any example", "bad"),
        (make_report(ALL_WRONG), "Every example is misclassified without an attack", "bad"),
        (
            make_report(draw_distances(1, wrong=0.6)),
            "At least half of the examples are misc",
            "mixed",
        ),
        (make_report(draw_distances(1, censored=0.6)), "No attack fooled more than half", "mixed"),
    ],
)
def test_verdict_is_honest(content: Report, headline: str, tone: str) -> None:
    verdict = judge_evaluation(content)
    assert verdict.headline.startswith(headline)
    assert verdict.tone == tone


def test_large_fall_of_accuracy_is_the_headline() -> None:
    verdict = judge_evaluation(make_comparison_report(0.99, 0.93))
    assert verdict.headline == "Accuracy fell by 6.0 points"
    assert verdict.tone == "bad"
    assert "fooled within 1.58" in verdict.sentence


def test_withheld_figures_are_not_shown_and_the_reason_comes_first() -> None:
    content = make_withheld_report(distance_median=1.2345, robust_accuracy=0.4321)
    html = render(content)
    verdict = html[: html.index("</header>")]
    assert "Gradients vanish on 41 % of the examples" in verdict
    assert "what zero gradient asks for" in verdict
    assert html.count("<td>withheld</td>") == 4
    assert "1.23" not in html
    assert f"{100 * (HARD > 1).mean():.1f}\N{NO-BREAK SPACE}%" not in html
    assert "43.2" not in html
    assert "median 1." not in html
    assert "reached by" not in html


def test_failing_checks_come_first() -> None:
    html = render(make_report(HARD, checks=WARNED))
    marks = [html.index(text) for text in ("<b>Fails:", "<b>Warns:", "<b>Passes:")]
    assert marks == sorted(marks)
    assert html.index("<summary>1 check passes") < marks[2]
    assert html.count("What to do:") == 2


def test_comparison_is_shown_where_there_is_a_reference() -> None:
    # The page shows the difference of the rounded accuracies, 0.1 points; they differ by 0.06.
    html = render(make_comparison_report(0.98809, 0.98749))
    for text in (
        "98.7",
        "98.8",
        f"{TIMES} 1.82",
        "1.74 to 1.93",
        f"{MINUS}0.1 points",
        f"{MINUS}0.4 to +0.2",
        "96.8",
        "Before",
    ):
        assert text in html
    alone = render(make_report(HARD))
    assert '<th scope="col">Value</th>' in alone
    assert "Before" not in alone
    assert "undefended network" not in alone


def test_robust_accuracy_of_the_reference_is_at_the_same_eps() -> None:
    html = render(make_report(HARD, PLAIN))
    share = f"{100 * (PLAIN > 1.0).mean():.1f}\N{NO-BREAK SPACE}%"
    row = html[html.index("Accuracy under attack within") :]
    assert share in row[: row.index("</tr>")]


@pytest.mark.parametrize("distances", [HARD, NO_ATTACK_WORKED, ALL_WRONG])
@pytest.mark.parametrize("before", [None, PLAIN, NO_ATTACK_WORKED, ALL_WRONG])
def test_examples_without_a_distance_are_counted_in_words(
    distances: Array, before: Array | None
) -> None:
    html = render(make_report(distances, before))
    wrong, censored = f"{(distances == 0).sum():,}", f"{np.isinf(distances).sum():,}"
    assert f"{wrong} misclassified without an attack" in html
    assert f"{censored} not fooled by any attack" in html
    assert not re.search(r"\b(nan|inf)\b", html)


@pytest.mark.parametrize(("classes", "mapped"), [(2, True), (20, True), (21, False), (200, False)])
def test_classes_are_mapped_while_there_are_few(classes: int, mapped: bool) -> None:
    html = render(make_report(HARD, classes=classes))
    assert ('<table class="map' in html) == mapped
    assert ("Most often classified as" in html) != mapped
    rows = html[html.index('id="classes"') : html.index('id="reading"')].count('<th scope="row">')
    assert rows == (classes if mapped else 15)


def test_missing_numbers_are_shown_as_missing() -> None:
    nothing = make_report(HARD, PLAIN)
    nan = float("nan")
    attacks = (replace(make_attack_line("apgd", "within eps", nan), success=None, median=None),)
    html = render(
        replace(
            nothing,
            **dict.fromkeys(("accuracy", "rho_2", "rho_2_median", "success"), nan),
            headline=Headline(None, None, None, None),
            attacks=attacks,
            distance=replace(nothing.distance, median=None, quantiles=FrozenDict({"50": None})),
            curve=Curve((), (), (), ()),
            intervals=FrozenDict(dict.fromkeys(nothing.intervals, (None, None))),
            comparison=Comparison(None, (None, None), nan, nan, (None, None)),
            minima=make_minima(np.full(N, nan)),
        )
    )
    assert "No curve was measured" in html
    assert "None" not in html
    assert not re.search(r"\bnan\b", html)


def test_page_needs_nothing_else_and_is_the_same_each_time() -> None:
    content = make_report(HARD, PLAIN)
    html = render(content, make_weakest())
    assert html == render(content, make_weakest())
    assert "<script" not in html
    assert not re.search(r"(src|href)=\"(?!data:|#)", html)
    assert "url(http" not in html
    assert "@import" not in html


def test_names_are_escaped() -> None:
    bad = "<script>alert(1)</script>"
    content = make_report(HARD, PLAIN, checks=(make_check(bad, "fail"),))
    html = render(
        replace(
            content,
            network=NetworkInfo(bad, 1, "a&b"),
            data=FrozenDict(content.data, class_names=(bad,) * 10, name=bad),
            attacks=(make_attack_line(bad, bad, 0.1, **{bad: bad}),),
            manifest=FrozenDict({bad: {bad: bad}}),
        )
    )
    assert "<script>" not in html
    assert "&lt;script&gt;" in html


@pytest.mark.parametrize("channels", [1, 3])
def test_gallery_is_shown_with_its_classes(channels: int) -> None:
    html = render(make_report(HARD), make_weakest(channels))
    for text in ("cat", "dog", "emu", "fox", "gnu", "hen", "0.0123", "row 4711", "by apgd"):
        assert text in html
    assert html.count("data:image/png;base64,") == 3 * 3
    assert html.count("<img") == html.count("alt=")
    assert "The weakest examples" not in render(make_report(HARD))


def test_manifest_is_complete_and_exact() -> None:
    html = render(make_report(HARD))
    entries = {
        "python": "3.11.9",
        "numpy": "2.1.0",
        "deepdefense": "0.9",
        "attacks": "0",
        "bootstrap": "1, 2",
        "attacks.0.name": "ddn",
        "attacks.1.eps": "0.03137254901960784",
        "deterministic": "yes",
        "notes": "none",
    }
    for key, value in entries.items():
        assert f'<tr><th scope="row">{key}</th><td>{value}</td></tr>' in html
