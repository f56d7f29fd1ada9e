"""Tests of training for a number of optimizer steps, divided into ten periods, and resumed."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import deepdefense as dd
from blobs import RECIPE, Interrupt
from deepdefense.training.epoch import draw_batches, select_batches
from torch_blobs import harden, have_same_weights, train_network

pytestmark = pytest.mark.only("torch")

# 150 examples in batches of 40, the last of which has 30: an epoch has 4 steps, a period 2 or 3.
SHORT = replace(RECIPE, optimizer_steps=25, batch_size=40, lr=0.003, optimizer="adam", anneal=True)


@pytest.fixture(scope="module")
def model() -> Any:
    return train_network()


@given(examples=st.integers(1, 50), size=st.integers(1, 20), steps=st.integers(1, 60))
def test_periods_divide_an_endless_series_of_epochs(examples: int, size: int, steps: int) -> None:
    recipe = dd.Recipe(optimizer_steps=steps, batch_size=size, seed=3)
    periods = [list(select_batches(recipe, examples, i)) for i in range(recipe.periods)]
    assert len(periods) == min(10, steps)
    assert max(map(len, periods)) - min(map(len, periods)) <= 1
    counts = [recipe.count_steps(examples, i) for i in range(recipe.periods + 1)]
    assert [len(batches) for batches in periods] == [end - begin for begin, end in pairwise(counts)]
    batches = [batch for period in periods for batch in period]
    assert len(batches) == steps
    expected = [b for epoch in range(steps) for b in draw_batches(examples, size, 3, epoch)]
    for batch, same in zip(batches, expected, strict=False):
        np.testing.assert_array_equal(batch, same)


def test_an_epoch_is_a_period_without_a_number_of_steps() -> None:
    for epoch in range(3):
        batches = list(select_batches(RECIPE, 151, epoch))
        expected = list(draw_batches(151, RECIPE.batch_size, RECIPE.seed, epoch))
        assert [batch.tolist() for batch in batches] == [batch.tolist() for batch in expected]


def test_rates_rise_and_fall_by_periods() -> None:
    epochs = dd.Recipe(epochs=10, lr=0.3, decay=0.1, warmup=2.5)
    for anneal in (False, True):
        by_epochs = replace(epochs, anneal=anneal)
        by_steps = replace(by_epochs, epochs=3, optimizer_steps=500)
        for period in range(10):
            for part in (0.02, 0.5, 1.0):
                assert by_steps.rate(period, part) == by_epochs.rate(period, part)


def test_history_counts_steps(model: Any) -> None:
    hardened, report = harden(model, recipe=SHORT)
    assert not have_same_weights(hardened, model)
    assert [record.epoch for record in report.history] == list(range(1, 11))
    assert [record.steps for record in report.history] == [2, 5, 7, 10, 12, 15, 17, 20, 22, 25]
    assert str(report).splitlines()[3].startswith("10 of 10 periods, each step at ")
    assert report.as_dict()["config"]["optimizer_steps"] == 25
    assert report.as_dict()["history"][1]["steps"] == 5
    _, report = harden(model, recipe=replace(RECIPE, batch_size=149))  # 1 step an epoch, not 2
    assert [record.steps for record in report.history] == [1, 2, 3]


# Steps 7, 13 and 14 are in the middle of a period and of an epoch.
@pytest.mark.parametrize("at", [7, 13, 14])
@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
def test_interrupted_run_resumes_to_the_same_result(
    model: Any, tmp_path: Path, optimizer: Any, at: int
) -> None:
    recipe = replace(SHORT, optimizer=optimizer, flip=True, shift=1)
    expected, report = harden(model, recipe=recipe)
    assert report.stopped is None
    with pytest.raises(KeyboardInterrupt):
        harden(model, recipe=recipe, out=tmp_path / "run", watcher=Interrupt("harden", at))
    hardened, resumed = harden(model, recipe=recipe, out=tmp_path / "run", resume=True)
    assert have_same_weights(hardened, expected)
    for one, other in zip(resumed.history, report.history, strict=True):
        assert replace(one, seconds=0) == replace(other, seconds=0)


def test_messages_call_a_part_of_training_a_period(model: Any) -> None:
    _, report = harden(model, recipe=replace(SHORT, lr=1e30), guard=dd.Guard(retries=0))
    assert report.stopped is not None
    assert "period 1" in report.stopped
    assert "epoch" not in report.stopped
