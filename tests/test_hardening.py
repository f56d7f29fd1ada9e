"""Tests of `dd.harden`: its result, its report, the files that it writes, and its settings."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import deepdefense as dd
from blobs import DEFENSE, RECIPE, TEST, TRAIN, summarize
from deepdefense.app.run_folder import load_weights
from torch_blobs import harden, have_same_weights, torch, train_network

pytestmark = pytest.mark.only("torch")


@pytest.fixture(scope="module")
def model() -> Any:
    return train_network()


def test_hardens_a_copy_and_reports_on_both(model: Any) -> None:
    before = {name: value.clone() for name, value in model.state_dict().items()}
    random = torch.get_rng_state()
    model.eval()
    hardened, report = harden(model)
    assert not model.training
    assert torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not have_same_weights(model, hardened)
    assert report.before == summarize(model, *TEST)
    assert report.after == summarize(hardened, *TEST)
    assert report.after.rho_2 > 1.5 * report.before.rho_2
    assert [record.epoch for record in report.history] == [1, 2, 3]
    assert report.history[-1].rho_2 == pytest.approx(report.after.rho_2)
    assert report.history[-1].accuracy == pytest.approx(report.after.accuracy)
    assert report.sample.n == 60
    assert report.sample.rho_2_before == pytest.approx(report.before.rho_2)
    assert report.cost.ratio > 1
    assert report.stopped is None
    assert hash(report) == hash(replace(report))
    first, second, third, fourth, *_ = str(report).splitlines()
    assert f"{first}\n{second}" == str(report.verdict)
    assert third.startswith(f"rho_2 {report.before.rho_2:.4f} -> {report.after.rho_2:.4f} by DeepF")
    assert fourth.startswith("3 of 3 epochs, each step at ")


def test_verdict_holds_what_strong_attacks_find(model: Any) -> None:
    hardened, report = harden(model)
    verdict = report.verdict
    assert (verdict.n, verdict.accuracy_n, verdict.attacks) == (60, 60, ("DDN", "FMN"))
    assert verdict.accuracy_before == report.before.accuracy
    assert verdict.accuracy_after == report.after.accuracy
    x, y = torch.tensor(TEST[0], dtype=torch.float32), torch.tensor(TEST[1])
    for network, median in ((model, verdict.median_before), (hardened, verdict.median_after)):
        sizes = [
            attack(network, x, y, steps=20).delta.flatten(1).norm(dim=1)
            for attack in (dd.ddn, dd.fmn)
        ]
        assert median == pytest.approx(float(torch.minimum(*sizes).median()), rel=1e-5)
    assert verdict.distance_change == "more"
    _, within = harden(model, defense=dd.DeepDefense.fast(lam=2.0, c=2.0, bounds=(-5, 5)))
    assert within.verdict.bounded
    _, outside = harden(model, defense=dd.DeepDefense.fast(lam=2.0, c=2.0, bounds=(-1, 1)))
    assert not outside.verdict.bounded


def test_is_reproducible(model: Any) -> None:
    (first, one), (second, two) = harden(model), harden(model)
    assert have_same_weights(first, second)
    assert one.after == two.after
    for change in ({"seed": 2}, {"flip": True}, {"shift": 1}):
        other, _ = harden(model, recipe=replace(RECIPE, **change))
        assert not have_same_weights(first, other)


def test_tensors_give_the_result_of_arrays(model: Any) -> None:
    tensors = [tuple(torch.as_tensor(part) for part in pair) for pair in (TRAIN, TEST)]
    expected, _ = harden(model)
    hardened, _ = dd.harden(model, *tensors, defense=DEFENSE, recipe=RECIPE)
    assert have_same_weights(hardened, expected)


def test_hardens_on_examples_that_are_not_images() -> None:
    flat = [(x.reshape(len(x), -1), y) for x, y in (TRAIN, TEST)]
    torch.manual_seed(0)
    linear = torch.nn.Linear(16, 3).double()
    _, report = dd.harden(linear, *flat, defense=DEFENSE, recipe=RECIPE)
    assert report.stopped is None
    assert len(report.history) == RECIPE.epochs


def test_zero_epochs_change_nothing(model: Any) -> None:
    hardened, report = harden(model, recipe=replace(RECIPE, epochs=0))
    assert have_same_weights(hardened, model)
    assert report.history == ()
    assert report.before == report.after


def test_measures_in_the_norm_of_the_penalty(model: Any) -> None:
    _, report = harden(model, defense=replace(DEFENSE, p=math.inf))
    assert report.after.p == math.inf
    assert report.after.rho_p is not None
    assert report.before.rho_p is not None
    assert report.after.rho_p > report.before.rho_p
    assert report.as_dict()["config"]["p"] == "inf"
    assert report.as_dict()["after"]["p"] == "inf"


def test_folder_holds_report_page_and_weights(model: Any, tmp_path: Path) -> None:
    hardened, report = harden(model, out=tmp_path / "run")
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert names == {"settings.json", "report.json", "report.html", "hardened.safetensors"}
    content = json.loads((tmp_path / "run" / "report.json").read_text())
    assert content == report.as_dict()
    assert list(content) == [
        "schema",
        "backend",
        "network",
        "data",
        "config",
        "environment",
        "verdict",
        "before",
        "after",
        "history",
        "sample",
        "cost",
        "stopped",
        "warnings",
        "notes",
        "rehearsal",
        "no_gain",
    ]
    keys = {"accuracy", "rho_2", "rho_2_median", "success", "iterations_mean", "n"}
    assert keys <= set(content["before"])
    assert keys <= set(content["after"])
    keys = {"loss", "cross_entropy", "penalty", "accuracy", "rho_2", "seconds"}
    assert keys <= set(content["history"][0])
    assert content["environment"]["device"] == "cpu"
    assert set(content["cost"]) == {"plain_step_seconds", "hardening_step_seconds", "ratio"}
    page = (tmp_path / "run" / "report.html").read_text()
    assert "<script" not in page
    assert "http://" not in page.replace("http://www.w3.org", "")
    assert 'src="data:image/png;base64' in page  # the blobs have an image's shape, [1 4 4]
    weights = load_weights(tmp_path / "run" / "hardened.safetensors")
    for name, value in hardened.state_dict().items():
        np.testing.assert_array_equal(weights[name], value.numpy())


def test_calibration_fits_the_penalty_to_the_network(model: Any) -> None:
    defense = dd.calibrate(model, *TRAIN)
    assert defense.c * summarize(model, *TRAIN).rho_2_median == pytest.approx(1.5, rel=0.01)
    assert defense.d == pytest.approx(defense.c / 5, rel=0.01)
    _, report = dd.harden(model, TRAIN, TEST, recipe=replace(RECIPE, epochs=1, clip="auto"))
    assert report.defense == dd.calibrate(model, *TRAIN, seed=RECIPE.seed)
    assert isinstance(report.recipe.clip, float)
    constant = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 3))
    with torch.no_grad():
        constant[1].weight.zero_()
    with pytest.raises(dd.InputError, match="c cannot be fitted to this network"):
        dd.calibrate(constant, *TRAIN)


def test_modes_and_gradients_of_the_network_are_restored(model: Any) -> None:
    model.eval()
    model[1].training = True  # one layer in training mode, the others not
    hardened, _ = harden(model)
    model[1].training = False
    assert [module.training for module in hardened] == [False, True, False, False, False]
    assert all(parameter.grad is None for parameter in hardened.parameters())
    x = torch.tensor(TEST[0], dtype=torch.float32)
    assert torch.equal(hardened(x), hardened(x))  # dropout is off


def test_doctor_warns_of_a_model_in_training_mode(model: Any) -> None:
    for mode, status in ((True, "warn"), (False, "pass")):
        model.train(mode)
        diagnosis = dd.doctor(model, TEST[0].astype(np.float32), TEST[1])
        assert next(c.status for c in diagnosis.checks if c.name == "training mode") == status


def test_one_example_more_than_a_batch_joins_it(model: Any) -> None:
    x, y = TRAIN
    _, report = dd.harden(
        model, (x[:31], y[:31]), TEST, defense=DEFENSE, recipe=replace(RECIPE, batch_size=30)
    )
    assert report.cost.ratio > 0


def test_automatic_clipping_needs_a_finite_gradient(model: Any) -> None:
    _, report = harden(
        model,
        defense=dd.DeepDefense.fast(lam=1e38),
        recipe=replace(RECIPE, clip="auto"),
        guard=dd.Guard(retries=0),
    )
    assert report.stopped is not None
    assert "no longer finite" in report.stopped
    assert report.recipe.clip is None
    assert "no clip: the gradient before training" in report.warnings[-1]


def test_warns_of_low_accuracy_before_training(model: Any) -> None:
    x, y = TEST
    _, report = dd.harden(model, TRAIN, (x, (y + 1) % 3), recipe=replace(RECIPE, epochs=0))
    assert len(report.warnings) == 1
    assert "preprocessed in this way?" in report.warnings[0]
