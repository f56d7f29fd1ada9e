"""Tests of the verdict on a hardening run: its intervals and its wording."""

from __future__ import annotations

import json
import math
import re
from typing import Any

import numpy as np
import pytest

from deepdefense.evaluation.paired_interval import paired_interval
from deepdefense.training.verdict import HardeningVerdict

N = 300
RANDOM = np.random.default_rng(0)
BEFORE = np.abs(RANDOM.normal(0.5, 0.2, N)) + 0.01
NOISE = RANDOM.uniform(0.9, 1.1, N)
RIGHT = np.ones(N, bool)


def make_verdict(
    after: Any, before: Any = BEFORE, right: tuple[Any, Any] = (RIGHT, RIGHT), **options: Any
) -> HardeningVerdict:
    settings: dict[str, Any] = {"p": 2.0, "attacks": ("DDN", "FMN"), **options}
    return HardeningVerdict.compare(np.asarray(before), np.asarray(after), *right, **settings)


def lose(count: int, gain: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return masks in which `count` examples turn wrong and `gain` examples turn right."""
    before, after = RIGHT.copy(), RIGHT.copy()
    after[:count] = False
    before[N - gain :] = False
    return before, after


@pytest.mark.parametrize(
    ("after", "change", "words"),
    [
        (1.24 * BEFORE * NOISE, "more", r"\d+ % to \d+ % further from the decision boundary \("),
        (2.4 * BEFORE * NOISE, "more", r"2\.\d to 2\.\d times as far from the decision boundary"),
        (0.8 * BEFORE * NOISE, "less", r"\d+ % to \d+ % nearer to the decision boundary"),
        (1.5 * BEFORE, "more", "about 50 % further from"),
        (RANDOM.permutation(BEFORE), "unclear", "no clear change of distance"),
        (BEFORE, "unclear", "no clear change of distance"),
        (np.where(np.arange(N) % 2 < 1, math.inf, 3 * BEFORE), "more", r"at least \d\.\d times as"),
        (np.full(N, math.inf), "unmeasured", "less than half of the examples of the hardened"),
    ],
)
def test_says_how_the_distance_changed(after: Any, change: str, words: str) -> None:
    verdict = make_verdict(after)
    first, second = str(verdict).splitlines()
    assert verdict.distance_change == change
    assert re.search(words, first)
    assert second == "no clear change of accuracy (100.0 % -> 100.0 %, 300 held-out examples)"


def test_names_medians_attacks_norm_and_number() -> None:
    after = np.full(N, 0.63)
    verdict = make_verdict(after, np.full(N, 0.5061), p=math.inf)
    assert verdict.distance_figures == (
        "median linf distance 0.506 -> 0.63 by DDN and FMN, 300 held-out examples"
    )
    assert verdict.growth == pytest.approx(0.63 / 0.5061)
    low, high = make_verdict(1.3 * BEFORE * NOISE).growth_interval
    assert low is not None
    assert high is not None
    assert low < 1.3 < high


@pytest.mark.parametrize(
    ("right", "change", "words"),
    [
        (lose(15), "less", r"less accurate by \d to \d points \(100\.0 % -> 95\.0 %"),
        (lose(0, gain=15), "more", r"more accurate by \d to \d points \(95\.0 % -> 100\.0 %"),
        (lose(1), "unclear", r"no clear change of accuracy \(100\.0 % -> 99\.7 %"),
        (lose(9, gain=8), "unclear", r"no clear change of accuracy \(97\.3 % -> 97\.0 %"),
    ],
)
def test_says_how_the_accuracy_changed(right: Any, change: str, words: str) -> None:
    verdict = make_verdict(BEFORE, right=right)
    assert verdict.accuracy_change == change
    assert re.search(words, str(verdict))


def test_does_not_judge_what_cannot_be_measured() -> None:
    few = make_verdict(2 * BEFORE[:5], BEFORE[:5], right=(RIGHT[:5], RIGHT[:5]))
    assert few.growth == pytest.approx(2)
    assert few.growth_interval == (None, None)
    assert "no verdict on the distance: 5 examples are too few" in str(few)
    wrong = make_verdict(BEFORE, np.where(np.arange(N) < 200, 0, BEFORE))
    assert wrong.growth is None
    assert "the given network is wrong on at least half of the examples" in str(wrong)
    unreached = make_verdict(BEFORE, np.full(N, math.inf))
    assert "less than half of the examples of the given network" in str(unreached)


def test_verdict_is_hashable_and_fits_json() -> None:
    verdict = make_verdict(1.2 * BEFORE)
    assert hash(verdict) == hash(make_verdict(1.2 * BEFORE))
    content = json.loads(json.dumps(verdict.as_dict(), allow_nan=False))
    assert content["text"] == str(verdict)
    assert content["growth"] == pytest.approx(1.2)


def test_paired_interval_turns_round_with_the_measurements() -> None:
    low, high = paired_interval(both=36, gained=2, lost=12, n=54)
    assert low < -10 / 54 < high < 0
    assert paired_interval(both=36, gained=12, lost=2, n=54) == pytest.approx((-high, -low))
    # A closer correlation makes the interval narrower.
    other_low, other_high = paired_interval(both=26, gained=2, lost=12, n=54)
    assert other_high - other_low < high - low


@pytest.mark.parametrize("n", [1, 20, 85, 1000])
def test_paired_interval_has_a_width_at_full_accuracy(n: int) -> None:
    low, high = paired_interval(both=n, gained=0, lost=0, n=n)
    assert low < 0 < high


def test_paired_interval_covers_the_true_change() -> None:
    random = np.random.default_rng(0)
    shares = {"both": 0.93, "lost": 0.04, "gained": 0.01, "neither": 0.02}
    covered = 0
    for _ in range(400):
        both, lost, gained, _ = random.multinomial(200, list(shares.values()))
        low, high = paired_interval(both=int(both), gained=int(gained), lost=int(lost), n=200)
        covered += low <= shares["gained"] - shares["lost"] <= high
    assert covered / 400 > 0.92
