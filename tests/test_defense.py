"""The penalty's settings."""

from __future__ import annotations

import math

import pytest

import deepdefense as dd


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
        ({"gradient": "chord"}, r"chord takes one step, got steps=5: .* DeepDefense.fast\(\)"),
        ({"unfinished": "no"}, "unfinished must be one of keep, drop"),
    ],
)
def test_bad_settings_are_told(changes: dict, message: str) -> None:
    with pytest.raises(dd.InputError, match=message):
        dd.DeepDefense(**changes)


def test_is_a_value() -> None:
    assert dd.DeepDefense() == dd.DeepDefense(p=2)
    assert hash(dd.DeepDefense()) == hash(dd.DeepDefense(p=2))
    assert repr(dd.DeepDefense()).startswith("DeepDefense(lam=15.0, c=25.0, d=5.0, p=2")


def test_fast_is_a_named_set_of_settings() -> None:
    expected = dd.DeepDefense(gradient="chord", candidates=2, steps=1, c=3.0)
    assert dd.DeepDefense.fast(c=3.0) == expected
    assert dd.DeepDefense.fast(candidates=3).candidates == 3
    with pytest.raises(dd.InputError, match="chord takes one step, got steps=2"):
        dd.DeepDefense.fast(steps=2)
