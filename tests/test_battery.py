"""Test the summary of the battery in benchmarks/battery on rows made by hand."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks.battery.summary import judge_run, summarise

pytestmark = pytest.mark.only("numpy")

Row = dict[str, Any]


def make_rival(method: str, growth: float | None, accuracy: float = 0.9) -> Row:
    return {"method": method, "lr": 0.01, "steps": 500, "growth": growth, "accuracy": accuracy}


def make_run(growth: float | None, accuracy: float = 0.9, rivals: tuple[Row, ...] = ()) -> Row:
    """Return a run whose given network has the accuracy 0.9 and the floor 0.89."""
    interval = (None, None) if growth is None else (growth - 0.1, growth + 0.1)
    return {
        "pair": "iris-mlp",
        "title": "iris, MLP",
        "framework": "torch",
        "seed": 0,
        "complete": bool(rivals),
        "given": {"accuracy": 0.9, "distance": 1.0},
        "floor": 0.89,
        "default": {
            "growth": growth,
            "growth_interval": interval,
            "accuracy": accuracy,
            "steps": 500,
            "seconds": 1.0,
            "told": {},
        },
        "rivals": list(rivals),
    }


def test_best_rival_keeps_the_accuracy_floor() -> None:
    rivals = (
        make_rival("pgd 3", 3.0, accuracy=0.88),
        make_rival("pgd 2", 1.5, accuracy=0.89),
        make_rival("pgd 1", 1.2, accuracy=0.95),
    )
    line = judge_run(make_run(1.4, rivals=rivals))
    assert (line["best"], line["best_growth"]) == ("pgd 2", 1.5)
    assert not line["reached"]


@pytest.mark.parametrize(("growth", "reached"), [(1.43, True), (1.42, False)])
def test_run_reaches_the_best_rival_at_95_percent(growth: float, reached: bool) -> None:
    assert judge_run(make_run(growth, rivals=(make_rival("plain", 1.5),)))["reached"] is reached


def test_given_network_is_a_rival() -> None:
    rivals = (make_rival("plain", 0.8), {"method": "mma 4", "lr": 0.01, "failed": "not finite"})
    line = judge_run(make_run(0.94, rivals=rivals))
    assert (line["best"], line["best_growth"], line["reached"]) == ("given", 1.0, False)
    assert judge_run(make_run(0.96, rivals=rivals))["reached"]


def test_run_without_rivals_is_not_compared() -> None:
    line = judge_run(make_run(1.4))
    assert (line["best"], line["best_growth"], line["reached"]) == (None, None, None)


def test_rival_of_unknown_growth_is_not_the_best() -> None:
    assert judge_run(make_run(1.2, rivals=(make_rival("plain", None),)))["best"] == "given"


def test_summary_counts_the_runs() -> None:
    rivals = (make_rival("pgd 1", 1.5),)
    runs = [
        make_run(1.5, rivals=rivals),
        make_run(1.6, accuracy=0.88, rivals=rivals),  # below the floor
        make_run(0.95, rivals=rivals),  # nearer, and behind the rival
        make_run(0.85, rivals=rivals),  # clearly nearer, and behind the rival
        make_run(None, rivals=rivals),
        make_run(1.0, accuracy=0.89),  # as accurate as the floor, no rivals
    ]
    summary = summarise(runs)
    counts = {key: value for key, value in summary.items() if isinstance(value, int)}
    assert counts == {
        "runs": 6,
        "compared": 4,
        "reached": 2,
        "below_floor": 1,
        "nearer": 2,
        "clearly_nearer": 1,
        "unmeasured": 1,
    }
    assert summary["reached_share"] == 0.5
    assert len(summary["lines"]) == 6


def test_growths_are_averaged_geometrically() -> None:
    rivals = (make_rival("pgd 1", 1.5),)
    summary = summarise([make_run(1.0, rivals=rivals), make_run(4.0, rivals=rivals)])
    assert summary["geometric_mean_growth"] == pytest.approx(2.0)
    assert summary["geometric_mean_best_growth"] == pytest.approx(1.5)


def test_summary_of_no_runs_has_no_share() -> None:
    summary = summarise([])
    assert (summary["runs"], summary["reached_share"]) == (0, None)
    assert summary["geometric_mean_growth"] is None
