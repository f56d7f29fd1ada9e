"""Tests of the page about a hardening: its verdict, its content, and that it is one file."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from deepdefense.app.pages import Gallery, judge_hardening, render_hardening
from deepdefense.defenses.deep_defense import DeepDefense
from deepdefense.evaluation.provenance import NetworkInfo
from deepdefense.evaluation.rho_protocol import Summary
from deepdefense.seam.frozen_dict import FrozenDict
from deepdefense.training.cost import Cost
from deepdefense.training.guard import Guard
from deepdefense.training.history import EpochRecord
from deepdefense.training.recipe import Recipe
from deepdefense.training.report import CurveSample, HardeningReport
from deepdefense.training.verdict import HardeningVerdict

DATA = {"name": "blobs", "train": 9, "test": 1000, "classes": 3, "input_shape": (4,)}
BEFORE = Summary(
    accuracy=0.97, rho_2=0.2, rho_2_median=0.19, success=1.0, iterations_mean=1.5, n=1000
)
AFTER = replace(BEFORE, accuracy=0.98, rho_2=0.4)
EPOCH = EpochRecord(
    epoch=1,
    loss=1.0,
    cross_entropy=0.1,
    penalty=0.9,
    unfinished=0.0,
    accuracy=0.96,
    rho_2=0.3,
    gradient=1.0,
    seconds=2.0,
    iterations=1.5,
)
VERDICT = HardeningVerdict(
    n=300,
    p=2.0,
    bounded=False,
    attacks=("DDN", "FMN"),
    median_before=0.51,
    median_after=0.63,
    growth=1.235,
    growth_interval=(1.17, 1.31),
    accuracy_n=1000,
    accuracy_before=0.97,
    accuracy_after=0.98,
    accuracy_interval=(0.002, 0.018),
)
REPORT = HardeningReport(
    backend="torch",
    network=NetworkInfo("mlp", 10, "given"),
    data=FrozenDict(DATA),
    defense=DeepDefense(),
    recipe=Recipe(epochs=2),
    guard=Guard(),
    environment=FrozenDict(python="3"),
    verdict=VERDICT,
    before=BEFORE,
    after=replace(AFTER, rho_2_median=0.39),
    history=(EPOCH, replace(EPOCH, epoch=2, accuracy=0.98, rho_2=0.4)),
    sample=CurveSample(1000, 0.2),
    cost=Cost(plain_step_seconds=0.01, hardening_step_seconds=0.1, ratio=10.0),
    stopped=None,
    warnings=(),
    notes=(),
)


def report(**changes: Any) -> HardeningReport:
    """Return the report of a hardening that doubled rho in two epochs; `changes` replace fields."""
    return replace(REPORT, **changes)


def page(content: HardeningReport, gallery: Gallery | None = None) -> str:
    rng = np.random.default_rng(0)
    rho = rng.uniform(0, 0.4, 50)
    return render_hardening(content, rho_before=rho, rho_after=2 * rho, gallery=gallery)


def judged(**changes: Any) -> HardeningReport:
    return report(verdict=replace(VERDICT, **changes))


LESS = {"accuracy_after": 0.95, "accuracy_interval": (-0.03, -0.01)}
FURTHER = "17 % to 31 % further from the decision boundary"


@pytest.mark.parametrize(
    ("content", "headline", "tone"),
    [
        (report(), f"{FURTHER}; more accurate by 0.2 to 2 points", "good"),
        (
            judged(accuracy_after=0.97, accuracy_interval=(-0.01, 0.01)),
            f"{FURTHER}; no clear change of accuracy",
            "good",
        ),
        (judged(**LESS), f"{FURTHER}; less accurate by 1 to 3 points", "mixed"),
        (
            judged(growth_interval=(0.98, 1.04), **LESS),
            "No clear change of distance to the decision boundary; less accurate by 1 to 3 points",
            "mixed",
        ),
        (
            judged(growth_interval=(0.8, 0.9), **LESS),
            "10 % to 20 % nearer to the decision boundary; less accurate by 1 to 3 points",
            "bad",
        ),
        (
            judged(accuracy_after=0.5, accuracy_interval=(-0.51, -0.43)),
            "Less accurate by 43 to 51 points; 17 % to 31 % further from the decision boundary",
            "bad",
        ),
        (
            judged(growth_interval=(2.1, 2.6)),
            "2.1 to 2.6 times as far from the decision boundary; more accurate by 0.2 to 2 points",
            "good",
        ),
        (report(stopped="the loss was not finite"), "The run stopped early", "bad"),
        (report(history=()), "No epoch was run, so nothing was hardened", "mixed"),
        (
            report(after=replace(AFTER, success=0.9)),
            f"{FURTHER}; more accurate by 0.2 to 2 points",
            "mixed",
        ),
    ],
)
def test_verdict_is_honest(content: HardeningReport, headline: str, tone: str) -> None:
    verdict = judge_hardening(content)
    assert verdict.headline == headline
    assert verdict.tone == tone
    assert headline in page(content)


def test_page_begins_with_the_distance_and_then_has_rho() -> None:
    html = page(report())
    start = html.index("<strong>17 % to 31 % further from the decision boundary")
    distance = html.index(
        "distance 0.51 \N{RIGHTWARDS ARROW} 0.63 by DDN and FMN, 300 held-out examples; "
    )
    assert start < distance < html.index("By DeepFool alone, an upper bound that flatters")
    assert "rose from 0.200 to 0.400 (2.0 times)" in html
    assert "deepdefense evaluate FOLDER" in html
    arrays = page(report(data=FrozenDict({**DATA, "name": "arrays"})))
    assert "dd.evaluate(hardened, x_test, y_test, reference=model)" in arrays


def test_text_begins_with_the_verdict() -> None:
    lines = str(report()).splitlines()
    assert lines[:2] == str(VERDICT).splitlines()
    assert lines[2] == (
        "rho_2 0.2000 -> 0.4000 by DeepFool alone, an upper bound that flatters hardened networks, "
        "1,000 held-out examples"
    )


def test_stopped_run_says_why() -> None:
    assert "the loss was not finite" in page(report(stopped="the loss was not finite"))


def test_page_needs_nothing_else_and_is_the_same_each_time() -> None:
    html = page(report())
    assert html == page(report())
    assert "<script" not in html
    assert not re.search(r"(src|href)=\"(?!data:|#)", html)
    assert "url(http" not in html
    assert "@import" not in html


def test_names_are_escaped() -> None:
    network = NetworkInfo("<script>alert(1)</script>", 1, "a&b")
    html = page(report(network=network, warnings=("<b>bold</b>",)))
    assert "<script>" not in html
    assert "<b>bold" not in html
    assert "&lt;script&gt;" in html


@pytest.mark.parametrize("channels", [1, 3])
def test_gallery_is_shown_with_its_classes(channels: int) -> None:
    rng = np.random.default_rng(0)
    images = rng.uniform(size=(2, 5, 6, channels))
    gallery = Gallery(
        images=images,
        delta_before=0.01 * rng.normal(size=images.shape),
        delta_after=0.1 * rng.normal(size=images.shape),
        labels=("cat", "dog"),
        fooled_before=("emu", "fox"),
        fooled_after=("gnu", "hen"),
        rho_before=np.array([0.1, 0.2]),
        rho_after=np.array([0.3, 0.4]),
    )
    html = page(report(), gallery)
    for name in ("cat", "dog", "emu", "fox", "gnu", "hen"):
        assert name in html
    # For each example: the image, two perturbed images and two perturbations.
    assert html.count("data:image/png;base64,") == 2 * 5
    assert html.count("<img") == html.count("alt=")


def test_curve_begins_with_rho_of_its_sample() -> None:
    html = page(report(sample=CurveSample(500, 0.123)))
    assert "0.123" in html
    assert "500 of the held-out examples" in html


def test_page_of_a_run_by_steps_speaks_of_periods() -> None:
    recipe = Recipe(optimizer_steps=1500)
    history = (replace(EPOCH, steps=150), replace(EPOCH, epoch=2, steps=1200))
    html = page(report(recipe=recipe, history=history))
    assert "Over the periods" in html
    assert ">Period</th>" in html
    assert "<td>1,200</td>" in html
    assert "Accuracy over the periods: " in html
    visible = re.sub(r"<(style|dl)\b.*?</\1>", "", html, flags=re.DOTALL)
    assert "Epoch" not in visible
    assert "No period was run" in page(report(recipe=recipe, history=()))
    assert "Over the epochs" in page(report())
    assert ">Steps</th>" not in page(report())
