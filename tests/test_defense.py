"""Tests of the settings of the penalty, and of its chord steps and bounds."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import deepdefense as dd
from deepdefense.defenses.deep_defense import GRADIENTS
from deepdefense.errors import InputError
from deepdefense.evaluation.provenance import to_json
from deepdefense.training.report import describe_objective


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lam": -1.0}, "lam must be finite, 0 or more, got -1.0"),
        ({"c": math.nan}, "c must be finite"),
        ({"d": "5"}, "d must be a number"),
        ({"p": 0.9}, "p must be a number from 1 to inf"),
        ({"steps": 0}, "steps must be a whole number, 1 or more"),
        ({"candidates": 1}, "candidates must be a whole number, 2 or more"),
        ({"gradient": "exact"}, "gradient must be one of unrolled, implicit, chord, got 'exact'"),
        ({"unfinished": "no"}, "unfinished must be one of keep, drop"),
    ],
)
def test_bad_settings_raise(changes: dict, message: str) -> None:
    with pytest.raises(dd.InputError, match=message):
        dd.DeepDefense(**changes)


@pytest.mark.parametrize("gradient", GRADIENTS)
def test_missing_labels_raise(gradient: str) -> None:
    """Without labels an attack uses the predicted classes. The penalty must raise instead."""
    x = np.array([[3.0, 1.0]])
    plain = dd.Objective()
    defense = dd.DeepDefense(gradient=gradient)
    for compute in (defense, defense.terms, defense.objective, plain.objective):
        with pytest.raises(
            dd.InputError, match=r"labels are needed: class indices \[b\] with b = 1"
        ):
            compute(lambda x: x, x, None)


def test_defenses_compare_and_hash_by_their_settings() -> None:
    assert dd.DeepDefense() == dd.DeepDefense(p=2)
    assert hash(dd.DeepDefense()) == hash(dd.DeepDefense(p=2))
    assert repr(dd.DeepDefense()).startswith("DeepDefense(lam=15.0, c=25.0, d=5.0, p=2")


def test_numpy_numbers_become_python_numbers() -> None:
    """Settings must be storable, comparable and usable in compiled functions."""
    defense = dd.DeepDefense(c=np.float32(2), steps=np.int64(3), p=np.float64(2))
    assert defense == dd.DeepDefense(c=2.0, steps=3)
    assert (type(defense.c), type(defense.steps), type(defense.p)) == (float, int, float)
    assert type(dd.Recipe(epochs=np.int32(2)).epochs) is int
    with pytest.raises(dd.InputError, match="steps must be a whole number"):
        dd.DeepDefense(steps=np.float32(3))

    def model(x: np.ndarray) -> np.ndarray:
        return x @ np.array([[1.0, 0.0], [0.0, 1.0]])

    x = np.array([[3.0, 1.0]])
    perturbation = dd.deepfool(
        model, x, p=np.float32(2), steps=np.int64(5), overshoot=np.float32(0)
    )
    assert np.array_equal(perturbation.delta, dd.deepfool(model, x, steps=5, overshoot=0.0).delta)


def test_fast_is_a_preset_of_settings() -> None:
    expected = dd.DeepDefense(gradient="chord", candidates=2, steps=1, c=3.0)
    assert dd.DeepDefense.fast(c=3.0) == expected
    assert dd.DeepDefense.fast(candidates=3).candidates == 3
    assert dd.DeepDefense.fast(steps=2).steps == 2


def test_chord_steps_find_the_nearest_point_that_deepfool_misses() -> None:
    """Inside an ellipse, the steepest direction misses the nearest point of the boundary."""

    def model(x: np.ndarray) -> np.ndarray:
        inside = 1 - x[:, 0] ** 2 / 9 - x[:, 1] ** 2
        return np.stack([inside, 0 * inside], 1)

    x, y = np.array([[1.0, 0.3]]), np.array([0])
    around = np.linspace(0, 2 * np.pi, 1_000_001)
    nearest = np.hypot(3 * np.cos(around) - 1.0, np.sin(around) - 0.3).min()
    errors = []
    for steps in (1, 2, 3, 5):
        terms = dd.DeepDefense.fast(steps=steps, overshoot=0.0).terms(model, x, y)
        assert terms.steps.tolist() == [steps]
        errors.append(abs(terms.rho[0] * np.linalg.norm(x) / nearest - 1))
    assert errors == sorted(errors, reverse=True)
    assert errors[0] > 0.9
    assert errors[2] < 1e-3
    assert np.linalg.norm(dd.deepfool(model, x).delta) > 1.9 * nearest


def test_array_bounds_are_compared_by_value_and_serialised() -> None:
    low, high = np.zeros((1, 2, 2), np.float32), np.ones((1, 2, 2), np.float32)
    defense = dd.DeepDefense.fast(bounds=(low, high))
    same = dd.DeepDefense.fast(bounds=(low.copy(), high.copy()))
    assert defense == same
    assert hash(defense) == hash(same)
    assert defense != dd.DeepDefense.fast(bounds=(low, high + 1))
    assert replace(defense, c=1.0).bounds == defense.bounds
    low[:] = 2.0  # must not change the defence, which has a copy
    assert defense == same
    written = json.loads(json.dumps(to_json(describe_objective(defense))))["bounds"]
    assert [text.rpartition(", ")[0] for text in written] == [
        "array [1, 2, 2] from 0 to 0",
        "array [1, 2, 2] from 1 to 1",
    ]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"gradient": "unrolled"}, 'the gradient "chord" and p > 1'),
        ({"gradient": "implicit"}, "got gradient 'implicit', p 2"),
        ({"p": 1.0}, "got gradient 'chord', p 1"),
        ({"bounds": (1.0, 0.0)}, "low < high"),
        ({"bounds": (np.zeros(3), np.zeros(3))}, "low < high"),
        ({"bounds": 1.0}, "must be a pair"),
    ],
)
def test_unsuitable_bounds_raise(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        dd.DeepDefense(**{"gradient": "chord", "bounds": (0.0, 1.0), **settings})


def test_examples_may_lie_outside_the_bounds() -> None:
    """A random shift may move pixels of an image out of bounds that differ between pixels."""
    weight = np.array([[3.0, 4.0], [0.0, 0.0]])
    defense = dd.DeepDefense.fast(bounds=(0.0, 1.0))
    terms = defense.terms(lambda x: x @ weight.T, np.array([[1.2, 0.5]]), np.array([0]))
    assert np.isfinite(terms.penalty).all()
