"""The page of an evaluation: what it says, when it says nothing, and that it stands alone."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from deepdefense.app.pages import WeakestExamples, judge_evaluation, render_evaluation

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


def side(distances: Array) -> dict[str, Any]:
    """What the report says of one network with these distances."""
    eps = np.linspace(0, 3.5, 50)
    robust = (distances[:, None] > eps).mean(0)
    spread = 1.96 * np.sqrt(robust * (1 - robust) / N)
    quantiles = np.percentile(distances, LEVELS, method="lower")
    return {
        "accuracy": float((distances > 0).mean()),
        "rho_2": 0.29,
        "distance": {
            "median": finite(np.percentile(distances, 50, method="lower")),
            "quantiles": {str(k): finite(q) for k, q in zip(LEVELS, quantiles, strict=True)},
            "censored": int(np.isinf(distances).sum()),
            "wrong": int((distances == 0).sum()),
        },
        "curve": {
            "eps": eps.tolist(),
            "robust_accuracy": robust.tolist(),
            "low": (robust - spread).tolist(),
            "high": (robust + spread).tolist(),
        },
    }


def check(name: str, status: str = "pass", severe: bool = True) -> dict[str, Any]:
    evidence = f"On {name.replace('_', ' ')} 997 of 1,000 examples behave, within 1e-06."
    remedy = f"Run the attacks again with what {name.replace('_', ' ')} asks for."
    return {"name": name, "status": status, "severe": severe, "evidence": evidence} | {
        "remedy": remedy
    }


def attack(name: str, kind: str, best: float, **settings: Any) -> dict[str, Any]:
    median = 1.6 if kind == "minimum-norm" else None
    found = {
        "ran": 1000,
        "success": 0.61,
        "median": median,
        "best": best,
        "rejected": 0,
        "seconds": 12.3,
    }
    return {"name": name, "kind": kind, "settings": settings, **found}


def evaluation(
    distances: Array, before: Array | None = None, classes: int = 10, **changes: Any
) -> dict[str, Any]:
    """A report of an evaluation that found these distances, with these parts of it changed."""
    rng = np.random.default_rng(1)
    counts = rng.poisson(3000 / classes**2 * rng.uniform(size=(classes, classes)) ** 3)
    np.fill_diagonal(counts, 0)
    found = side(distances)
    eps, median = 1.0, found["distance"]["median"]
    robust = float((distances > eps).mean())
    return {
        "schema": "deepdefense.evaluate/1",
        "backend": "torch",
        "network": {"name": "lenet", "parameters": 431080, "weights": "hardened.safetensors"},
        "data": {
            "name": "mnist",
            "test": N,
            "of": 10000,
            "classes": classes,
            "class_names": [f"class {i}" if classes > 10 else str(i) for i in range(classes)],
            "input_shape": [1, 28, 28],
            "preprocessing": "pixels / 255",
            "fingerprint": "2b8f0c7d" * 8,
        },
        "threat": {
            "p": 2.0,
            "bounds": "0 to 1",
            "goal": "any other class",
            "knowledge": "white box: the attacker knows the network and its gradients",
        },
        "preset": "standard",
        "seed": 0,
        **found,
        "rho_2_median": 0.28,
        "success": 1.0,
        "iterations_mean": 2.5,
        "n": N,
        "unmeasured": 0,
        "headline": {
            "withheld": None,
            "distance_median": median,
            "eps": eps,
            "robust_accuracy": robust,
        },
        "intervals": {
            "accuracy": [0.984, 0.996],
            "rho_2": [0.28, 0.3],
            "distance_median": None if median is None else [0.97 * median, 1.03 * median],
            "robust_accuracy": [robust - 0.02, robust + 0.02],
        },
        "attacks": [
            attack("deepfool", "minimum-norm", 0.02, steps=50, overshoot=0.02, candidates=10),
            attack("ddn", "minimum-norm", 0.31, steps=200, gamma=0.05, init_eps=1.0),
            attack("fmn", "minimum-norm", 0.35, steps=200),
            attack("apgd", "within eps", 0.32, eps=1.0, steps=100, restarts=5, loss="dlr"),
        ],
        "checks": [check(name) for name in CHECKS],
        "weakness": {
            "counts": counts.tolist(),
            "median": rng.uniform(0.8, 2.2, classes).tolist(),
        },
        "reference": None if before is None else side(before) | {"network": {"weights": "plain"}},
        "comparison": None
        if before is None
        else {
            "median_ratio": 1.82,
            "interval": [1.74, 1.93],
            "better": 0.968,
            "accuracy_change": -0.001,
            "accuracy_interval": [-0.004, 0.002],
        },
        "manifest": {
            "versions": {"python": "3.11.9", "numpy": "2.1.0", "deepdefense": "0.9"},
            "seeds": {"attacks": 0, "bootstrap": [1, 2]},
            "attacks": [
                {"name": "ddn", "steps": 200},
                {"name": "apgd", "eps": 0.03137254901960784},
            ],
            "deterministic": True,
            "notes": {},
        },
        **changes,
    }


def withheld(**headline: Any) -> dict[str, Any]:
    checks = [check("logits"), check("zero_gradient", "fail"), check("restarts", "warn")]
    reason = "Gradients vanish on 41 % of the examples, so that attacks stand still"
    hidden = {"withheld": reason, "distance_median": None, "eps": 1.0, "robust_accuracy": None}
    return evaluation(smallest(1.53), checks=checks, headline=hidden | headline)


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


def page(
    content: dict[str, Any], distances: Array, before: Array | None = None, **more: Any
) -> str:
    gallery: WeakestExamples | None = more.get("gallery")
    return render_evaluation(
        content, distances=distances, reference_distances=before, gallery=gallery
    )


HARD, PLAIN = smallest(1.53), smallest(0.84)
NO_ATTACK_WORKED, ALL_WRONG = np.full(N, np.inf), np.zeros(N)
WARNED = [check("logits"), check("restarts", "warn"), check("transfer", "fail", severe=False)]
WORSE = {"median_ratio": 0.8, "interval": [0.7, 0.9], "better": 0.1} | {
    "accuracy_change": 0.0,
    "accuracy_interval": [-0.01, 0.01],
}


def more_accurate(accuracy: float) -> dict[str, Any]:
    """A reference network of that accuracy."""
    return {"reference": evaluation(HARD, PLAIN)["reference"] | {"accuracy": accuracy}}


@pytest.mark.parametrize(
    ("content", "headline", "tone"),
    [
        (evaluation(HARD), "Half of the examples are fooled within 1.58 (l2)", "good"),
        (evaluation(HARD, PLAIN), "Half of the examples are fooled within 1.58 (l2)", "good"),
        (
            evaluation(HARD, threat=evaluation(HARD)["threat"] | {"p": "inf"}),
            "Half of the examples are fooled within 1.58 (linf)",
            "good",
        ),
        (evaluation(HARD, checks=WARNED), "Half of the examples are fooled within", "mixed"),
        (evaluation(HARD, checks=[]), "Half of the examples are fooled within", "mixed"),
        (evaluation(HARD, PLAIN, comparison=WORSE), "Easier to fool than the undefended", "bad"),
        (withheld(), "Not to be trusted: zero gradient", "bad"),
        (withheld(withheld=None, distance_median=1.5), "Not to be trusted: zero gradient", "bad"),
        (withheld() | {"checks": []}, "The figures of robustness are not to be trusted", "bad"),
        (evaluation(NO_ATTACK_WORKED), "No attack fooled any example", "bad"),
        (evaluation(ALL_WRONG), "Every example is misclassified without an attack", "bad"),
        (evaluation(smallest(1, wrong=0.6)), "At least half of the examples are misc", "mixed"),
        (evaluation(smallest(1, censored=0.6)), "No attack fooled more than half", "mixed"),
    ],
)
def test_verdict_is_honest(content: dict[str, Any], headline: str, tone: str) -> None:
    verdict = judge_evaluation(content)
    assert verdict.headline.startswith(headline)
    assert verdict.tone == tone


def test_fall_of_accuracy_is_said_first() -> None:
    verdict = judge_evaluation(evaluation(HARD, PLAIN) | {"accuracy": 0.93, **more_accurate(0.99)})
    assert verdict.headline == "Accuracy fell by 6.0 points"
    assert verdict.tone == "bad"
    assert "fooled within 1.58" in verdict.sentence


def test_withheld_figures_are_nowhere_and_the_reason_is_first() -> None:
    content = withheld(distance_median=1.2345, robust_accuracy=0.4321)
    html = page(content, HARD)
    verdict = html[: html.index("</header>")]
    assert "Gradients vanish on 41 % of the examples" in verdict
    assert "what zero gradient asks for" in verdict
    assert html.count("<td>withheld</td>") == 4
    assert "1.23" not in html
    assert f"{100 * (HARD > 1).mean():.1f}\N{NO-BREAK SPACE}%" not in html
    assert "43.2" not in html
    assert "median 1." not in html
    assert "reached by" not in html


def test_checks_begin_with_what_fails() -> None:
    html = page(evaluation(HARD, checks=WARNED), HARD)
    marks = [html.index(text) for text in ("<b>Fails:", "<b>Warns:", "<b>Passes:")]
    assert marks == sorted(marks)
    assert html.index("<summary>1 check passes") < marks[2]
    assert html.count("What to do:") == 2


def test_comparison_is_shown_where_there_is_a_reference() -> None:
    # As between the figures beside it: 0.1 less, where what they round differs by 0.06.
    content = evaluation(HARD, PLAIN) | {"accuracy": 0.98749, **more_accurate(0.98809)}
    html = page(content, HARD, PLAIN)
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
    alone = page(evaluation(HARD), HARD)
    assert '<th scope="col">Value</th>' in alone
    assert "Before" not in alone
    assert "undefended network" not in alone


def test_robust_accuracy_of_the_reference_is_at_the_same_eps() -> None:
    html = page(evaluation(HARD, PLAIN), HARD, PLAIN)
    share = f"{100 * (PLAIN > 1.0).mean():.1f}\N{NO-BREAK SPACE}%"
    row = html[html.index("Accuracy under attack within") :]
    assert share in row[: row.index("</tr>")]


@pytest.mark.parametrize("distances", [HARD, NO_ATTACK_WORKED, ALL_WRONG])
@pytest.mark.parametrize("before", [None, PLAIN, NO_ATTACK_WORKED, ALL_WRONG])
def test_examples_without_a_distance_are_told_in_words(
    distances: Array, before: Array | None
) -> None:
    html = page(evaluation(distances, before), distances, before)
    wrong, censored = f"{(distances == 0).sum():,}", f"{np.isinf(distances).sum():,}"
    assert f"{wrong} misclassified without an attack" in html
    assert f"{censored} not fooled by any attack" in html
    assert not re.search(r"\b(nan|inf)\b", html)


@pytest.mark.parametrize(("classes", "mapped"), [(2, True), (20, True), (21, False), (200, False)])
def test_classes_are_mapped_while_there_are_few(classes: int, mapped: bool) -> None:
    html = page(evaluation(HARD, classes=classes), HARD)
    assert ('<table class="map' in html) == mapped
    assert ("Most often taken for" in html) != mapped
    rows = html[html.index('id="classes"') : html.index('id="reading"')].count('<th scope="row">')
    assert rows == (classes if mapped else 15)


def test_numbers_that_do_not_exist_are_left_out() -> None:
    nothing = evaluation(HARD, PLAIN)
    headline = dict.fromkeys(nothing["headline"])
    attacks = [attack("apgd", "within eps", 0.0) | {"best": None, "rejected": None}]
    distance = {"median": None, "quantiles": {"50": None}, "censored": None, "wrong": None}
    empty = {"eps": [], "robust_accuracy": [], "low": [], "high": []}
    html = page(
        nothing
        | dict.fromkeys(("accuracy", "rho_2", "rho_2_median", "success", "unmeasured"))
        | {"headline": headline, "attacks": attacks, "distance": distance, "curve": empty}
        | {"intervals": {key: [None, None] for key in nothing["intervals"]}}
        | {"comparison": dict.fromkeys(nothing["comparison"])},
        np.full(N, np.nan),
    )
    assert "No curve was measured" in html
    assert "None" not in html


def test_page_needs_nothing_else_and_is_the_same_each_time() -> None:
    content = evaluation(HARD, PLAIN)
    html = page(content, HARD, PLAIN, gallery=weakest())
    assert html == page(content, HARD, PLAIN, gallery=weakest())
    assert "<script" not in html
    assert not re.search(r"(src|href)=\"(?!data:|#)", html)
    assert "url(http" not in html
    assert "@import" not in html


def test_names_are_escaped() -> None:
    bad = "<script>alert(1)</script>"
    content = evaluation(HARD, PLAIN, checks=[check(bad, "fail")])
    content["network"] = {"name": bad, "parameters": 1, "weights": "a&b"}
    content["data"] = content["data"] | {"class_names": [bad] * 10, "name": bad}
    content["attacks"] = [attack(bad, bad, 0.1, **{bad: bad})]
    content["manifest"] = {bad: {bad: bad}}
    html = page(content, HARD, PLAIN)
    assert "<script>" not in html
    assert "&lt;script&gt;" in html


@pytest.mark.parametrize("channels", [1, 3])
def test_gallery_is_shown_with_its_classes(channels: int) -> None:
    html = page(evaluation(HARD), HARD, gallery=weakest(channels))
    for text in ("cat", "dog", "emu", "fox", "gnu", "hen", "0.0123", "row 4711", "by apgd"):
        assert text in html
    assert html.count("data:image/png;base64,") == 3 * 3
    assert html.count("<img") == html.count("alt=")
    assert "The weakest examples" not in page(evaluation(HARD), HARD)


def test_manifest_is_complete_and_exact() -> None:
    html = page(evaluation(HARD), HARD)
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
