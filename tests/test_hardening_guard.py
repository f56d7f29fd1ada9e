"""Tests of the guard of hardening: rejected epochs, retries, and an early end."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import deepdefense as dd
from blobs import RECIPE, TEST, TRAIN, Interrupt, summarize
from deepdefense.app.run_folder import load_weights
from deepdefense.defenses.objective import Objective
from deepdefense.seam.training_contract import Losses
from torch_blobs import harden, have_same_weights, train_network

pytestmark = pytest.mark.only("torch")


@pytest.fixture(scope="module")
def model() -> Any:
    return train_network()


@pytest.mark.parametrize("lr", [1e3, 1e30])
def test_divergence_stops_at_the_last_good_epoch(model: Any, tmp_path: Path, lr: float) -> None:
    hardened, report = harden(model, recipe=replace(RECIPE, lr=lr), out=tmp_path / "run")
    assert report.stopped is not None
    assert "nothing was changed" in report.stopped
    assert "lower learning rate" in report.stopped
    assert have_same_weights(hardened, model)
    assert report.history == ()
    assert report.after == report.before
    weights = load_weights(tmp_path / "run" / "hardened.safetensors")
    assert all(np.isfinite(value).all() for value in weights.values())
    assert json.loads((tmp_path / "run" / "report.json").read_text())["stopped"] == report.stopped


def test_later_divergence_keeps_the_epochs_before(
    model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    one_epoch, _ = harden(model, recipe=replace(RECIPE, epochs=1, decay=1.0))
    rates = {0: RECIPE.lr, 1: 1e30}
    monkeypatch.setattr(dd.Recipe, "rate", lambda recipe, epoch, part: rates[epoch])
    hardened, report = harden(model)
    assert report.stopped is not None
    assert "epoch 2; the weights of epoch 1 are kept" in report.stopped
    assert len(report.history) == 1
    assert have_same_weights(hardened, one_epoch)


def test_a_rejected_epoch_is_retried_at_half_the_learning_rate(
    model: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The first retry succeeds, and training continues at half the learning rate."""
    rate = dd.Recipe.rate
    monkeypatch.setattr(
        dd.Recipe, "rate", lambda r, epoch, part: 1e30 if r.lr > 0.01 else rate(r, epoch, part)
    )
    recipe = replace(RECIPE, lr=0.02)
    hardened, report = harden(model, recipe=recipe)
    assert report.stopped is None
    assert len(report.history) == 3
    (note,) = report.notes
    assert "epoch 1: taken back, and tried again at 0.5 of the learning rate" in note
    expected, _ = harden(model)  # at half the rate from the start
    assert have_same_weights(hardened, expected)
    with pytest.raises(KeyboardInterrupt):
        harden(model, recipe=recipe, out=tmp_path / "run", watcher=Interrupt("harden", 12))
    again, resumed = harden(model, recipe=recipe, out=tmp_path / "run", resume=True)
    assert have_same_weights(again, expected)
    assert resumed.notes == report.notes


class NegatedObjective(Objective):
    """An objective that lowers accuracy, as a much too large penalty would."""

    def losses(self, *arguments: Any) -> Losses:
        losses = super().losses(*arguments)
        return losses._replace(total=-losses.total)


def test_accuracy_on_validation_examples_stays_within_the_guard(model: Any) -> None:
    recipe = replace(RECIPE, lr=0.05)
    guard = dd.Guard(max_accuracy_drop=0.05, retries=12)
    _, lost = harden(model, defense=NegatedObjective(), recipe=recipe, guard=dd.Guard(retries=0))
    assert lost.stopped is not None
    assert "training accuracy collapsed in epoch 1" in lost.stopped
    hardened, report = harden(model, defense=NegatedObjective(), recipe=recipe, guard=guard)
    assert "on the examples set aside fell by more than 5.0% in epoch 1" in report.notes[0]
    assert report.history
    x, y = TRAIN
    aside = np.random.default_rng((recipe.seed, 1)).permutation(len(x))[:15]
    floor = summarize(model, x[aside], y[aside]).accuracy - 0.05
    assert summarize(hardened, x[aside], y[aside]).accuracy >= floor
    other_test = (TEST[0], (TEST[1] + 1) % 3)
    _, other = dd.harden(
        model, TRAIN, other_test, defense=NegatedObjective(), recipe=recipe, guard=guard
    )
    assert other.notes == report.notes  # no decision depends on the test data


def test_training_ends_when_robustness_no_longer_grows(model: Any) -> None:
    no_penalty = dd.DeepDefense(lam=0.0)
    _, report = harden(
        model,
        defense=no_penalty,
        recipe=replace(RECIPE, epochs=9, lr=1e-12),
        guard=dd.Guard(patience=2),
    )
    assert len(report.history) == 3
    assert report.stopped is None
    assert report.notes == ("ended after epoch 3: rho_2 on the examples set aside no longer grew",)
