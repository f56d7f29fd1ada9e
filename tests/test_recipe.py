"""Tests of `Recipe`: the values that it rejects, and its learning-rate schedule."""

from __future__ import annotations

import math
from dataclasses import asdict
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import deepdefense as dd


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epochs": -1}, "epochs must be a whole number, 0 or more, got -1"),
        ({"batch_size": 0}, "batch_size must be a whole number, 1 or more"),
        ({"lr": math.inf}, "lr must be finite, 0 or more"),
        ({"momentum": 1.0}, "momentum must be finite, 0 or more and less than 1"),
        ({"seed": 1.5}, "seed must be a whole number"),
        ({"shift": -1}, "shift must be a whole number, 0 or more, got -1"),
        ({"flip": 1}, "flip must be True or False, got 1"),
        ({"anneal": 0.1}, "anneal must be True or False, got 0.1"),
        ({"optimizer": "rmsprop"}, "optimizer must be one of sgd, adam, adamw, got 'rmsprop'"),
        ({"optimizer_steps": 0}, "optimizer_steps must be a whole number, 1 or more, got 0"),
        ({"mode": "eval"}, "mode must be one of training, inference, got 'eval'"),
    ],
)
def test_invalid_settings_are_rejected(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(dd.InputError, match=message):
        dd.Recipe(**changes)


@given(epochs=st.integers(1, 30), steps=st.integers(1, 5), decay=st.floats(0, 1))
def test_annealing_lets_the_rate_down(epochs: int, steps: int, decay: float) -> None:
    recipe = dd.Recipe(epochs=epochs, lr=0.2, decay=decay, anneal=True)
    parts = [step / steps for step in range(1, steps + 1)]
    rates = [recipe.rate(epoch, part) for epoch in range(epochs) for part in parts]
    assert all(later <= rate + 1e-12 for rate, later in pairwise([0.2, *rates]))
    assert rates[-1] == pytest.approx(0.2 * decay)


def test_the_paper_has_its_own_settings() -> None:
    assert dd.Recipe.paper(seed=2, shift=3) == dd.Recipe(
        epochs=5, lr=5e-4, weight_decay=5e-4, momentum=0.9, batch_size=100, seed=2, shift=3
    )


def test_recipe_is_a_value() -> None:
    assert dd.Recipe(**asdict(dd.Recipe(seed=3))) == dd.Recipe(seed=3)
