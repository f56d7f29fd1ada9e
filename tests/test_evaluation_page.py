"""The evaluation's page: verdict, contents, withheld figures; it needs no other file."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from deepdefense.app.pages import WeakestExamples, judge_evaluation, render_evaluation
from deepdefense.evaluation.checks import Check, Status
from deepdefense.evaluation.minima import Minima
from deepdefense.evaluation.provenance import NetworkInfo
from deepdefense.evaluation.report import (
    AttackLine,
    Headline,
    ReferenceFigures,
    Report,
    Threat,
    Weakness,
)
from deepdefense.evaluation.statistics import Comparison, Curve, Distance
from deepdefense.seam.frozen_dict import FrozenDict

Array = npt.NDArray[Any]
N = 1000
MINUS, TIMES = "\N{MINUS SIGN}", "\N{MULTIPLICATION SIGN}"
LEVELS = (5, 10, 25, 50, 75, 90)
CHECKS = (
    "logits",
    "gradients",
    "zero_gradient",
    "determinism",
    "unbounded_attack",
    "more_steps",
    "restarts",
    "random_noise",
    "transfer",
    "black_box",
    "step_size",
    "curve_falls",
    "ball",
    "bounds",
    "verified",
    "loss_rises",
    "agreement",
    "dtype",
)


def smallest(scale: float, wrong: float = 0.01, censored: float = 0.003) -> Array:
    """Distances of N examples, some of them misclassified and some that no attack fooled."""
    rng = np.random.default_rng(0)
    distances = scale * rng.gamma(4.0, 0.28, N)
    chance = rng.uniform(size=N)
    distances[chance < wrong] = 0
    distances[chance > 1 - censored] = np.inf
    return distances


def finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def accuracy(distances: Array) -> float:
    return float((distances > 0).mean())


def summarized(distances: Array) -> Distance:
    quantiles = np.percentile(distances, LEVELS, method="lower")
    return Distance(
        median=finite(np.percentile(distances, 50, method="lower")),
        quantiles=FrozenDict({str(k): finite(q) for k, q in zip(LEVELS, quantiles, strict=True)}),
        censored=int(np.isinf(distances).sum()),
        wrong=int((distances == 0).sum()),
    )


def curve(distances: Array) -> Curve:
    eps = np.linspace(0, 3.5, 50)
    robust = (distances[:, None] > eps).mean(0)
    spread = 1.96 * np.sqrt(robust * (1 - robust) / N)
    return Curve(*(tuple(a.tolist()) for a in (eps, robust, robust - spread, robust + spread)))


def minima(distances: Array) -> Minima:
    nothing = np.zeros(0)
    return Minima(2.0, distances, nothing, nothing.astype(int), nothing.astype(int))


def reference(distances: Array) -> ReferenceFigures:
    """What the report says of the undefended network with these distances."""
    return ReferenceFigures(
        network=NetworkInfo("lenet", 431080, "plain"),
        accuracy=accuracy(distances),
        rho_2=0.29,
        rho_2_median=0.28,
        success=1.0,
        iterations_mean=2.5,
        distance=summarized(distances),
        curve=curve(distances),
    )


def check(name: str, status: Status = "pass", severe: bool = True) -> Check:
    evidence = f"On {name.replace('_', ' ')} 997 of 1,000 examples behave, within 1e-06."
    remedy = f"Run the attacks again with what {name.replace('_', ' ')} asks for."
    return Check(name, status, evidence, remedy, severe)


def attack(name: str, kind: str, best: float, **settings: Any) -> AttackLine:
    return AttackLine(
        name=name,
        kind=kind,
        settings=FrozenDict(settings),
        ran=1000,
        success=0.61,
        median=1.6 if kind == "minimum-norm" else None,
        best=best,
        rejected=0,
        seconds=12.3,
    )


def evaluation(
    distances: Array, before: Array | None = None, classes: int = 10, **changes: Any
) -> Report:
    """A report of an evaluation that found these distances, with these parts of it changed."""
    rng = np.random.default_rng(1)
    counts = rng.poisson(3000 / classes**2 * rng.uniform(size=(classes, classes)) ** 3)
    np.fill_diagonal(counts, 0)
    eps, median = 1.0, summarized(distances).median
    robust = float((distances > eps).mean())
    data = {
        "name": "mnist",
        "test": N,
        "of": 10000,
        "classes": classes,
        "class_names": tuple(f"class {i}" if classes > 10 else str(i) for i in range(classes)),
        "input_shape": (1, 28, 28),
        "preprocessing": "pixels / 255",
        "fingerprint": "2b8f0c7d" * 8,
    }
    intervals = {
        "accuracy": (0.984, 0.996),
        "rho_2": (0.28, 0.3),
        "distance_median": (None, None) if median is None else (0.97 * median, 1.03 * median),
        "robust_accuracy": (robust - 0.02, robust + 0.02),
    }
    manifest = {
        "versions": {"python": "3.11.9", "numpy": "2.1.0", "deepdefense": "0.9"},
        "seeds": {"attacks": 0, "bootstrap": [1, 2]},
        "attacks": [
            {"name": "ddn", "steps": 200},
            {"name": "apgd", "eps": 0.03137254901960784},
        ],
        "deterministic": True,
        "notes": {},
    }
    report = Report(
        backend="torch",
        network=NetworkInfo("lenet", 431080, "hardened.safetensors"),
        data=FrozenDict(data),
        threat=Threat(2.0, "0 to 1"),
        preset="standard",
        seed=0,
        accuracy=accuracy(distances),
        rho_2=0.29,
        rho_2_median=0.28,
        success=1.0,
        iterations_mean=2.5,
        n=N,
        headline=Headline(None, median, eps, robust),
        distance=summarized(distances),
        curve=curve(distances),
        intervals=FrozenDict(intervals),
        attacks=(
            attack("deepfool", "minimum-norm", 0.02, steps=50, overshoot=0.02, candidates=10),
            attack("ddn", "minimum-norm", 0.31, steps=200, gamma=0.05, init_eps=1.0),
            attack("fmn", "minimum-norm", 0.35, steps=200),
            attack("apgd", "within eps", 0.32, eps=1.0, steps=100, restarts=5, loss="dlr"),
        ),
        checks=tuple(check(name) for name in CHECKS),
        weakness=Weakness(
            tuple(map(tuple, counts.tolist())), tuple(rng.uniform(0.8, 2.2, classes).tolist())
        ),
        reference=None if before is None else reference(before),
        comparison=None
        if before is None
        else Comparison(1.82, (1.74, 1.93), 0.968, -0.001, (-0.004, 0.002)),
        manifest=FrozenDict(manifest),
        minima=minima(distances),
        reference_minima=None if before is None else minima(before),
        x=np.zeros(0),
        y=np.zeros(0, np.int64),
    )
    return replace(report, **changes)


def withheld(**headline: Any) -> Report:
    checks = (check("logits"), check("zero_gradient", "fail"), check("restarts", "warn"))
    reason = "Gradients vanish on 41 % of the examples, so that attacks stand still"
    hidden = replace(Headline(reason, None, 1.0, None), **headline)
    return evaluation(smallest(1.53), checks=checks, headline=hidden)


def weakest(channels: int = 1, size: int = 28) -> WeakestExamples:
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:size, :size] / size
    images = np.stack([np.exp(-30 * ((x - a) ** 2 + (y - 0.5) ** 2)) for a in (0.3, 0.5, 0.7)])
    images = np.repeat(images[..., None], channels, -1)
    return WeakestExamples(
        images=images,
        deltas=0.02 * rng.normal(size=images.shape) * (images > 0.1),
        labels=("cat", "dog", "emu"),
        fooled=("fox", "gnu", "hen"),
        distances=np.array([0.0123, 0.1, 0.2]),
        attacks=("ddn", "fmn", "apgd"),
        rows=(4711, 12, 9),
    )


def page(content: Report, gallery: WeakestExamples | None = None) -> str:
    return render_evaluation(content, gallery=gallery)


HARD, PLAIN = smallest(1.53), smallest(0.84)
NO_ATTACK_WORKED, ALL_WRONG = np.full(N, np.inf), np.zeros(N)
WARNED = (check("logits"), check("restarts", "warn"), check("transfer", "fail", severe=False))
WORSE = Comparison(0.8, (0.7, 0.9), 0.1, 0.0, (-0.01, 0.01))


def accuracies(before: float, after: float) -> Report:
    """A report of two networks of these accuracies."""
    return evaluation(
        HARD, PLAIN, accuracy=after, reference=replace(reference(PLAIN), accuracy=before)
    )


@pytest.mark.parametrize(
    ("content", "headline", "tone"),
    [
        (evaluation(HARD), "Half of the examples are fooled within 1.58 (l2)", "good"),
        (evaluation(HARD, PLAIN), "Half of the examples are fooled within 1.58 (l2)", "good"),
        (
            evaluation(HARD, threat=Threat(float("inf"), "0 to 1")),
            "Half of the examples are fooled within 1.58 (linf)",
            "good",
        ),
        (evaluation(HARD, checks=WARNED), "Half of the examples are fooled within", "mixed"),
        (evaluation(HARD, checks=()), "Half of the examples are fooled within", "mixed"),
        (evaluation(HARD, PLAIN, comparison=WORSE), "Easier to fool than the undefended", "bad"),
        (withheld(), "Not to be trusted: zero gradient", "bad"),
        (withheld(withheld=None, distance_median=1.5), "Not to be trusted: zero gradient", "bad"),
        (replace(withheld(), checks=()), "The figures of robustness are not to be trusted", "bad"),
        (evaluation(NO_ATTACK_WORKED), "No attack fooled any example", "bad"),
        (evaluation(ALL_WRONG), "Every example is misclassified without an attack", "bad"),
        (evaluation(smallest(1, wrong=0.6)), "At least half of the examples are misc", "mixed"),
        (evaluation(smallest(1, censored=0.6)), "No attack fooled more than half", "mixed"),
    ],
)
def test_verdict_is_honest(content: Report, headline: str, tone: str) -> None:
    verdict = judge_evaluation(content)
    assert verdict.headline.startswith(headline)
    assert verdict.tone == tone


def test_large_fall_of_accuracy_is_the_headline() -> None:
    verdict = judge_evaluation(accuracies(0.99, 0.93))
    assert verdict.headline == "Accuracy fell by 6.0 points"
    assert verdict.tone == "bad"
    assert "fooled within 1.58" in verdict.sentence


def test_withheld_figures_are_not_shown_and_the_reason_comes_first() -> None:
    content = withheld(distance_median=1.2345, robust_accuracy=0.4321)
    html = page(content)
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
    html = page(evaluation(HARD, checks=WARNED))
    marks = [html.index(text) for text in ("<b>Fails:", "<b>Warns:", "<b>Passes:")]
    assert marks == sorted(marks)
    assert html.index("<summary>1 check passes") < marks[2]
    assert html.count("What to do:") == 2


def test_comparison_is_shown_where_there_is_a_reference() -> None:
    # The change is that of the printed figures: 0.1 points, though accuracy differs by 0.06.
    html = page(accuracies(0.98809, 0.98749))
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
    alone = page(evaluation(HARD))
    assert '<th scope="col">Value</th>' in alone
    assert "Before" not in alone
    assert "undefended network" not in alone


def test_robust_accuracy_of_the_reference_is_at_the_same_eps() -> None:
    html = page(evaluation(HARD, PLAIN))
    share = f"{100 * (PLAIN > 1.0).mean():.1f}\N{NO-BREAK SPACE}%"
    row = html[html.index("Accuracy under attack within") :]
    assert share in row[: row.index("</tr>")]


@pytest.mark.parametrize("distances", [HARD, NO_ATTACK_WORKED, ALL_WRONG])
@pytest.mark.parametrize("before", [None, PLAIN, NO_ATTACK_WORKED, ALL_WRONG])
def test_examples_without_a_distance_are_counted_in_words(
    distances: Array, before: Array | None
) -> None:
    html = page(evaluation(distances, before))
    wrong, censored = f"{(distances == 0).sum():,}", f"{np.isinf(distances).sum():,}"
    assert f"{wrong} misclassified without an attack" in html
    assert f"{censored} not fooled by any attack" in html
    assert not re.search(r"\b(nan|inf)\b", html)


@pytest.mark.parametrize(("classes", "mapped"), [(2, True), (20, True), (21, False), (200, False)])
def test_classes_are_mapped_while_there_are_few(classes: int, mapped: bool) -> None:
    html = page(evaluation(HARD, classes=classes))
    assert ('<table class="map' in html) == mapped
    assert ("Most often classified as" in html) != mapped
    rows = html[html.index('id="classes"') : html.index('id="reading"')].count('<th scope="row">')
    assert rows == (classes if mapped else 15)


def test_missing_numbers_are_shown_as_missing() -> None:
    nothing = evaluation(HARD, PLAIN)
    nan = float("nan")
    attacks = (replace(attack("apgd", "within eps", nan), success=None, median=None),)
    html = page(
        replace(
            nothing,
            **dict.fromkeys(("accuracy", "rho_2", "rho_2_median", "success"), nan),
            headline=Headline(None, None, None, None),
            attacks=attacks,
            distance=replace(nothing.distance, median=None, quantiles=FrozenDict({"50": None})),
            curve=Curve((), (), (), ()),
            intervals=FrozenDict(dict.fromkeys(nothing.intervals, (None, None))),
            comparison=Comparison(None, (None, None), nan, nan, (None, None)),
            minima=minima(np.full(N, nan)),
        )
    )
    assert "No curve was measured" in html
    assert "None" not in html
    assert not re.search(r"\bnan\b", html)


def test_page_needs_nothing_else_and_is_the_same_each_time() -> None:
    content = evaluation(HARD, PLAIN)
    html = page(content, weakest())
    assert html == page(content, weakest())
    assert "<script" not in html
    assert not re.search(r"(src|href)=\"(?!data:|#)", html)
    assert "url(http" not in html
    assert "@import" not in html


def test_names_are_escaped() -> None:
    bad = "<script>alert(1)</script>"
    content = evaluation(HARD, PLAIN, checks=(check(bad, "fail"),))
    html = page(
        replace(
            content,
            network=NetworkInfo(bad, 1, "a&b"),
            data=FrozenDict(content.data, class_names=(bad,) * 10, name=bad),
            attacks=(attack(bad, bad, 0.1, **{bad: bad}),),
            manifest=FrozenDict({bad: {bad: bad}}),
        )
    )
    assert "<script>" not in html
    assert "&lt;script&gt;" in html


@pytest.mark.parametrize("channels", [1, 3])
def test_gallery_is_shown_with_its_classes(channels: int) -> None:
    html = page(evaluation(HARD), weakest(channels))
    for text in ("cat", "dog", "emu", "fox", "gnu", "hen", "0.0123", "row 4711", "by apgd"):
        assert text in html
    assert html.count("data:image/png;base64,") == 3 * 3
    assert html.count("<img") == html.count("alt=")
    assert "The weakest examples" not in page(evaluation(HARD))


def test_manifest_is_complete_and_exact() -> None:
    html = page(evaluation(HARD))
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
