"""Tests of `dd.evaluate`: its statistics, the files that it writes, resuming, and errors."""

from __future__ import annotations

import json
import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import deepdefense as dd
from blobs import Interrupt
from deepdefense.evaluation.statistics import (
    bootstrap,
    compare_distances,
    robust_accuracy,
    security_curve,
    summarize_distances,
    wilson_interval,
)
from deepdefense_numpy.networks import TinyNetwork

pytestmark = pytest.mark.only("numpy")

NETWORK = TinyNetwork.draw(np.random.default_rng(3), [4, 8, 3], "tanh")
X = np.random.default_rng(4).normal(size=(12, 4))
Y = NETWORK(X).argmax(1)


def test_failed_attacks_count_as_infinity_and_mistakes_as_zero() -> None:
    values = np.array([0.0, 0.0, 1.0, 2.0, 3.0, math.inf, math.inf, math.inf])
    summary = summarize_distances(values)
    assert (summary.median, summary.wrong, summary.censored) == (2.0, 2, 3)
    assert summary.quantiles == {
        "5": 0.0, "10": 0.0, "25": 0.0, "50": 2.0, "75": None, "90": None
    }  # fmt: skip
    assert robust_accuracy(values, 0.0) == 6 / 8
    assert robust_accuracy(values, 2.0) == 4 / 8
    curve = security_curve(values)
    assert curve.robust_accuracy[0] == 6 / 8
    assert curve.robust_accuracy[-1] == 3 / 8
    assert all(a >= b for a, b in pairwise(curve.robust_accuracy))
    assert security_curve(np.zeros(3)).eps == ()


def test_intervals_contain_the_truth_as_often_as_they_claim() -> None:
    rng = np.random.default_rng(0)
    hits = []
    for seed in range(100):
        low, high = bootstrap(lambda v: v[..., 0].mean(1), rng.normal(1.0, 2.0, 200), seed=seed)
        assert low is not None
        assert high is not None
        hits.append(low <= 1.0 <= high)
    assert 88 <= sum(hits) <= 100  # 95 are expected, with a standard deviation of 2.2
    low, high = wilson_interval(0.5, 100)
    assert low == pytest.approx(0.4, abs=0.02)
    assert high == pytest.approx(0.6, abs=0.02)
    assert wilson_interval(1.0, 50) == pytest.approx((0.9287, 1.0), abs=1e-4)
    assert wilson_interval(0.0, 50) == pytest.approx((0.0, 0.0713), abs=1e-4)


def test_networks_are_compared_pair_by_pair() -> None:
    before = np.random.default_rng(1).uniform(1, 2, 101)
    before[0] = 0
    comparison = compare_distances(before, 2 * before)
    assert comparison.median_ratio == pytest.approx(2)
    # Every ratio of the two networks is 2, so the interval has no width.
    assert comparison.interval == pytest.approx((2, 2))
    assert comparison.better == 100 / 101
    assert comparison.accuracy_change == 0
    unknown = compare_distances(before, np.full(101, math.inf))
    assert unknown.median_ratio is None


def test_eps_ref_is_where_accuracy_falls_to_the_level() -> None:
    eps = dd.eps_ref(NETWORK, X, Y, level=0.6)
    below, above = dd.fgs_accuracy(NETWORK, X, Y, [0.99 * eps, eps])
    assert above <= 0.6 < below
    with pytest.raises(dd.InputError, match="not above the level"):
        dd.eps_ref(NETWORK, X, (Y + 1) % 3)
    with pytest.raises(dd.InputError, match="no eps brings accuracy down"):
        dd.eps_ref(lambda x: 0 * NETWORK(x) + np.eye(3)[0], X, np.zeros(12, int))


def test_an_interrupted_evaluation_is_resumed(tmp_path: Path) -> None:
    whole = dd.evaluate(NETWORK, X, Y, bounds=(-4.0, 4.0), batch_size=4, out=tmp_path / "whole")
    cut = tmp_path / "cut"
    options: dict[str, Any] = {"bounds": (-4.0, 4.0), "batch_size": 4, "out": cut}
    with pytest.raises(KeyboardInterrupt):
        dd.evaluate(NETWORK, X, Y, watcher=Interrupt("fmn(p=2.0, steps=30)", 8), **options)
    parts = sorted(path.name for path in cut.glob("*.part.safetensors"))
    assert len(parts) >= 4  # the files of all batches of DeepFool, and of the first batch of FMN
    again = dd.evaluate(NETWORK, X, Y, **options)
    assert {path.name for path in cut.iterdir()} == {"report.json", "report.html", "settings.json"}
    old, new = (
        json.loads((tmp_path / name / "report.json").read_text()) for name in ("whole", "cut")
    )
    for report in (old, new):
        for attack in report["attacks"]:
            del attack["seconds"]
    assert old == new
    assert (again.distances == whole.distances).all()
    assert new["schema"] == "deepdefense.evaluate/1"
    assert [set(check) for check in new["checks"]] == [
        {"name", "status", "evidence", "remedy", "severe"}
    ] * len(new["checks"])
    page = (cut / "report.html").read_text()
    assert "Half of the examples are fooled within" in page
    with pytest.raises(dd.InputError, match="is not empty"):
        dd.evaluate(NETWORK, X, Y, out=cut)


def test_withheld_figures_are_nowhere(tmp_path: Path) -> None:
    def probabilities(x: np.ndarray) -> np.ndarray:
        powers = np.exp(NETWORK(x))
        return powers / powers.sum(1, keepdims=True)

    report = dd.evaluate(probabilities, X, Y, out=tmp_path / "out")
    content = json.loads((tmp_path / "out" / "report.json").read_text())
    assert not report.trusted
    assert content["headline"]["distance_median"] is None
    assert content["headline"]["robust_accuracy"] is None
    assert "probabilities" in content["headline"]["withheld"]
    assert "Not to be trusted: logits" in (tmp_path / "out" / "report.html").read_text()


def test_random_outputs_withhold_the_headline() -> None:
    random = np.random.default_rng(5)

    def noisy(x: np.ndarray) -> np.ndarray:
        logits = NETWORK(x)
        return logits + random.normal(size=logits.shape)

    report = dd.evaluate(noisy, X, Y)
    assert "randomness" in (report.headline.withheld or "")
    assert report.distance.wrong == np.sum(report.distances == 0)


def test_a_report_is_printable_and_hashable() -> None:
    report = dd.evaluate(NETWORK, X, Y)
    assert isinstance(hash(report), int)
    assert "accuracy=1.0" in repr(report)
    text, headline = str(report), report.headline
    assert text.startswith("accuracy 100.00 % of 12 examples; rho_2 ")
    assert f"median l2 distance, best attack: {headline.distance_median:.4g}\n" in text
    assert f"within {headline.eps:.4g}: {100 * headline.robust_accuracy:.2f} %" in text
    assert "times the reference's" in str(dd.evaluate(NETWORK, X, Y, reference=NETWORK))
    text = str(dd.doctor(NETWORK, X, Y))
    assert "pass  logits" in text


def test_a_network_that_is_always_wrong_is_not_trusted() -> None:
    report = dd.evaluate(NETWORK, X, (Y + 1) % 3)
    assert report.accuracy == 0
    assert report.distance.median == 0
    assert not report.trusted


def test_unfit_data_raise() -> None:
    with pytest.raises(dd.InputError, match=r"labels must lie in 0\.\.2"):
        dd.evaluate(NETWORK, X, Y + 1)
    with pytest.raises(dd.InputError, match="must be float32 or float64"):
        dd.evaluate(NETWORK, X.astype(int), Y)
    with pytest.raises(dd.InputError, match="needs y, the label of each example"):
        dd.evaluate(NETWORK, X, None)
    with pytest.raises(dd.InputError, match="examples must be an array, got list"):
        dd.evaluate(NETWORK, X.tolist(), Y)
    with pytest.raises(dd.InputError, match="seed must be a whole number, 0 or more"):
        dd.evaluate(NETWORK, X, Y, seed=-1)
    with pytest.raises(dd.InputError, match="there is no example"):
        dd.evaluate(NETWORK, X[:0], Y[:0])


def test_an_example_that_is_not_finite_counts_as_misclassified() -> None:
    x = X.copy()
    x[0] = np.nan
    report = dd.evaluate(NETWORK, x, Y)
    assert report.distances[0] == 0
    assert report.distance.wrong == 1
    assert np.isfinite(report.distances).all()


def test_rounding_in_the_maximum_norm_rejects_no_point() -> None:
    """In float32, the rounding error of x + eps may exceed a millionth of eps."""
    rng = np.random.default_rng(5)
    network = TinyNetwork.draw(rng, [40, 8, 3], "tanh")
    x = (128 + 60 * rng.uniform(-1, 1, (10, 40))).astype(np.float32)

    def model(x: np.ndarray) -> np.ndarray:
        return network((x.astype(np.float64) - 128) / 60).astype(x.dtype)

    y = model(x).argmax(1)
    low, high = np.full(40, 1 / 3), np.full(40, 255 + 1 / 3)  # not representable in float32
    report = dd.evaluate(model, x, y, p=np.inf, eps=[8.0, 20.0], bounds=(low, high))
    assert sum(line.rejected for line in report.attacks) == 0
    assert (report.minima.points >= low.astype(np.float32)).all()
    assert any(line.success for line in report.attacks if line.kind == "within eps")


def test_results_of_other_settings_are_not_reused(tmp_path: Path) -> None:
    out = tmp_path / "cut"
    with pytest.raises(KeyboardInterrupt):
        dd.evaluate(NETWORK, X, Y, watcher=Interrupt("fmn(p=2.0, steps=30)", 1), out=out)
    # The saved results are of attacks without bounds, so attacks with bounds must not reuse them.
    report = dd.evaluate(NETWORK, np.clip(X, -1, 1), Y, bounds=(-1.0, 1.0), out=out)
    assert (np.abs(report.minima.points) <= 1).all()
    (tmp_path / "harden").mkdir()
    (tmp_path / "harden" / "settings.json").write_text('{"command": "harden"}')
    with pytest.raises(dd.InputError, match="is of harden, not of evaluate"):
        dd.evaluate(NETWORK, X, Y, out=tmp_path / "harden")


def test_rounding_of_large_inputs_rejects_no_point() -> None:
    weight = np.random.default_rng(0).normal(size=(3, 20)).astype(np.float32)

    def network(x: np.ndarray) -> np.ndarray:
        return (x - np.float32(300)) @ weight.T  # inputs are near 300, where float32 is coarse

    x = (300 + np.random.default_rng(1).normal(size=(40, 20))).astype(np.float32)
    report = dd.evaluate(network, x, network(x).argmax(1), preset="quick")
    claims = next(check for check in report.checks if check.name == "claims hold")
    assert claims.status == "pass", claims.evidence


def test_fgs_accuracy_counts_examples_that_are_not_finite_as_wrong() -> None:
    x = X.copy()
    x[3, 1] = np.nan
    assert dd.eps_ref(NETWORK, x, Y) == pytest.approx(dd.eps_ref(NETWORK, X, Y), rel=0.5)

    def broken(x: np.ndarray) -> np.ndarray:
        return np.where(np.abs(x).max(1, keepdims=True) > 50, np.nan, NETWORK(x))

    assert dd.fgs_accuracy(broken, X, Y, [0.0, 100.0]) == (1.0, 0.0)


def test_bounds_may_be_open_on_one_side() -> None:
    x = np.abs(X)
    report = dd.evaluate(NETWORK, x, NETWORK(x).argmax(1), bounds=(0, math.inf), preset="quick")
    assert report.headline
    with pytest.raises(dd.InputError, match="must lie within the bounds, 0 to inf"):
        dd.evaluate(NETWORK, X, Y, bounds=(0, math.inf), preset="quick")
