"""Tests of `deepdefense reproduce`: networks train once, tables are written, errors are raised."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deepdefense.app import cli
from deepdefense.app.data import load_data
from deepdefense.app.study import tables
from deepdefense.app.study.experiment_runner import ExperimentRunner
from deepdefense.app.study.experiments import EXPERIMENTS
from deepdefense.app.study.views import format_markdown
from deepdefense.evaluation import fgs_accuracy
from deepdefense.seam.progress import Watcher
from deepdefense.seam.training_contract import training_backend

pytest.importorskip("torch", reason="PyTorch is not installed")
pytestmark = pytest.mark.only("torch")

METHODS = ("plain", "deepdefense")


def run(table: str, out: Path, *options: str) -> int:
    """Run `deepdefense reproduce` on the digits, and return its exit code."""
    with pytest.raises(SystemExit) as left:
        cli.main(["reproduce", table, "--quick", "--examples", "20", "--out", str(out), *options])
    return int(left.value.code or 0)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a study with two seeds, after its first table was written."""
    out = tmp_path_factory.mktemp("study")
    assert run("table1", out, "--methods", *METHODS, "--seeds", "0", "1") == 0
    return out


def content(study: Path, table: str) -> dict[str, Any]:
    return dict(json.loads((study / f"{table}.json").read_text()))


def test_table1_has_a_row_for_each_method_and_seed(study: Path) -> None:
    report = content(study, "table1")
    assert report["command"] == (
        "deepdefense reproduce table1 --quick --methods plain deepdefense --seeds 0 1 --examples 20"
    )
    assert "torch" in report["environment"]
    rows = report["rows"]
    assert [(row["method"], row["seed"]) for row in rows] == [
        (method, seed) for seed in (0, 1) for method in ("reference", *METHODS)
    ]
    for row in rows:
        assert {"network", "data", "accuracy", "rho_2", "median_l2", "growth"} <= set(row)
        assert 0.9 < row["accuracy"] <= 1
        # Accuracy falls with the length of the FGS step.
        assert row["fgs_0.2"] >= row["fgs_0.5"] >= row["fgs_1"]
        assert set(row["fgs_at"]["reference at 50%"]) == {"0.2", "0.5", "1", "eps"}
    reference, plain, defended = rows[:3]
    assert reference["growth"] == 1
    assert defended["fgs_1"] == pytest.approx(0.5, abs=0.051)
    assert defended["rho_2"] > 1.1 * plain["rho_2"]
    assert defended["growth"] > 1.05
    hardening = json.loads((study / "digits-mlp" / "deepdefense-0" / "report.json").read_text())
    assert hardening["after"]["rho_2"] == defended["rho_2"]
    curve = report["curves"]["digits-mlp"]["fgs"]["deepdefense"]
    assert curve["accuracy"][0] >= curve["accuracy"][-1]
    np.testing.assert_allclose(curve["eps"][-1], 2 * defended["eps_ref"])


def test_pages_average_over_seeds(study: Path) -> None:
    rows = content(study, "table1")["rows"]
    values = [100 * row["accuracy"] for row in rows if row["method"] == "plain"]
    line = f"{np.mean(values):.2f} % ± {np.std(values, ddof=1):.2f} %"
    written = (study / "table1.md").read_text()
    assert line in written
    assert len(written.splitlines()) == 2 + 2 + 3
    page = (study / "table1.html").read_text()
    assert line in page
    assert "<svg" in page
    assert "<script" not in page
    assert "http" not in page.replace("http-equiv", "")


def test_other_tables_train_nothing_again(study: Path) -> None:
    weights = study / "digits-mlp" / "plain-0" / "hardened.safetensors"
    before = weights.stat().st_mtime_ns
    options = ("--methods", *METHODS, "--seeds", "0")
    for table in ("table2", "epochs", "cost"):
        assert run(table, study, *options) == 0
    assert weights.stat().st_mtime_ns == before
    lines = content(study, "table2")["rows"]
    nearest = {
        (row["method"], row["attack"]): row["median"] for row in lines if row["norm"] == "l2"
    }
    assert nearest["deepdefense", "FMN"] > nearest["reference", "FMN"]
    assert nearest["reference", "FMN"] <= 1.01 * nearest["reference", "DeepFool"]
    within = [row for row in lines if row["eps"] is not None]
    assert all(0 <= row["accuracy"] <= 1 for row in within)
    assert {row["norm"] for row in within} == {"l2", "linf"}
    history = content(study, "epochs")["rows"]
    assert [row["epoch"] for row in history if row["method"] == "deepdefense"] == [1, 2, 3]
    (defended,) = (r for r in content(study, "cost")["rows"] if r["method"] == "deepdefense")
    assert defended["step_ratio"] > 1
    assert 1 <= defended["iterations_first"] <= 5
    assert defended["mb_beyond_plain"] is None or defended["mb_beyond_plain"] >= 0
    curves = content(study, "cost")["curves"]["digits-mlp"]["iterations"]
    assert list(curves) == ["deepdefense"]
    assert curves["deepdefense"]["iterations"][0] == defended["iterations_first"]


def test_methods_stand_side_by_side() -> None:
    """Each row is an epoch; the cell of a method without this epoch is empty."""
    rows = [
        {"label": label, "seed": seed, "epoch": epoch, "accuracy": accuracy, "rho_2": 0.125}
        for label, seed, epoch, accuracy in (
            ("long", 0, 1, 0.5),
            ("long", 1, 1, 0.7),
            ("long", 0, 2, 0.75),
            ("short", 0, 1, 0.25),
        )
    ]
    assert [line.split(" | ")[2:] for line in format_markdown("epochs", rows).splitlines()] == [
        ["epoch", "long", "short |"],
        ["---", "---", "--- |"],
        ["1", "60.00 % ± 14.14 %, 0.125 ± 0", "25.00 %, 0.125 |"],
        ["2", "75.00 %, 0.125", " |"],
    ]


def test_ablation_varies_one_setting_at_a_time(
    study: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "VARIATION_FACTORS", (0.5,))
    assert run("ablation", study, "--seeds", "0", "--methods", "deepdefense") == 0
    rows = content(study, "ablation")["rows"]
    assert [(row["changed"], row["factor"]) for row in rows] == [
        ("nothing", 1.0),
        ("c", 0.5),
        ("d", 0.5),
        ("lam", 0.5),
    ]
    base = rows[0]
    for row in rows[1:]:
        for name in ("c", "d", "lam"):
            assert row[name] == (0.5 if name == row["changed"] else 1) * base[name]


def test_penalty_acts_on_one_layer(study: Path) -> None:
    assert run("layers", study, "--seeds", "0", "--methods", "deepdefense") == 0
    rows = {row["layer"]: row["rho_2"] for row in content(study, "layers")["rows"]}
    assert list(rows) == ["all", "fc1", "fc2", "fc3"]
    assert rows["all"] == max(rows.values())


def test_shortened_schedule(
    study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The table's JSON holds the numbers of examples. Other numbers need another folder."""
    options = ("--methods", "plain", "--epochs", "1", "--test-examples", "40")
    options += ("--train-examples", "300")
    assert run("epochs", tmp_path, *options) == 0
    report = content(tmp_path, "epochs")
    assert report["data"]["digits-mlp"]["train"] == 300
    assert report["data"]["digits-mlp"]["test"] == 40
    assert "--train-examples 300 --test-examples 40" in report["command"]
    assert run("epochs", study, *options) != 0
    assert "made with other settings" in capsys.readouterr().err
    assert run("epochs", tmp_path, *options[:-1], "5") != 0
    assert "take more of them" in capsys.readouterr().err


def test_interrupted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The message names no --resume: the same command continues from the folder."""

    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("deepdefense.app.cli.reproduce.run_study", interrupt)
    assert run("table1", tmp_path) == 130
    assert "the same command" in capsys.readouterr().err


def test_invalid_studies_are_rejected(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for options, message in (
        (("--methods", "magic"), "method must be one of plain, parseval"),
        (("--subjects", "mnist"), "subject must be one of digits-mlp"),
        (("--seeds", "0", "0"), "seeds must be different whole numbers"),
        (("--seeds", "0", "--epochs", "2"), "was made with other settings"),
        (("--epochs", "0"), "epochs must be a whole number, 1 or more"),
    ):
        assert run("table1", study, *options) == 2
        assert message in " ".join(capsys.readouterr().err.split())


def test_scale_of_a_network_that_is_mostly_wrong(tmp_path: Path) -> None:
    """If accuracy without an attack is below 50 %, the FGS step must halve that accuracy."""
    backend, data = training_backend("torch"), load_data("digits")
    runner = ExperimentRunner(EXPERIMENTS["digits-mlp"], backend, data, tmp_path, Watcher())
    untrained = runner.build_network(0)
    rows = np.random.default_rng(3).permutation(len(data.x_train))[:1000]
    x, y = data.x_train[rows], data.y_train[rows]
    scale = runner.measure_scale(untrained)
    clean, stepped = fgs_accuracy(untrained, x, y, [0.0, scale.fgs])
    assert 0 < clean < 0.5
    assert stepped == pytest.approx(clean / 2, abs=0.02)
