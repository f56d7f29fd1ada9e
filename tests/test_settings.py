"""Tests of declared settings: their checks, their documentation, and options made from them."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Literal

import numpy as np
import pytest

import deepdefense as dd
from deepdefense.app.jobs.defaults import find_defaults
from deepdefense.app.jobs.settings import EVALUATE, HARDEN, REPRODUCE
from deepdefense.defenses import baselines
from deepdefense.seam.settings import (
    check_settings,
    document_settings,
    help_texts,
    list_settings,
    none_or,
    norm_order,
    one_of,
    real_number,
    setting,
    true_or_false,
    whole_number,
)

CLASSES = [dd.Recipe, dd.Guard, dd.DeepDefense]
CLASSES += [getattr(baselines, name) for name in baselines.__all__]


@document_settings
@dataclass(frozen=True)
class Schedule:
    """How long to train."""

    epochs: int = setting(5, "passes over the training examples", whole_number(1))
    rate: float = setting(0.1, "learning rate", real_number(0, below=1))
    order: float = setting(2, "order of the norm", norm_order)
    clip: float | Literal["auto"] | None = setting(
        None, "largest gradient", none_or(real_number(0), "auto"), unset="no limit"
    )
    kind: str = setting("a", "kind of schedule", one_of("a", "b"), option=False)
    flip: bool = setting(False, "mirror images", true_or_false)
    note: str = ""  # not declared by `setting`, so neither checked nor documented

    def __post_init__(self) -> None:
        check_settings(self)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epochs": 0}, "epochs must be a whole number, 1 or more, got 0"),
        ({"rate": 1}, "rate must be finite, 0 or more and less than 1, got 1"),
        ({"order": 0.5}, "p must be a number from 1 to inf, got 0.5"),
        ({"clip": "none"}, "clip must be a number, got 'none'"),
        ({"kind": "c"}, "kind must be one of a, b, got 'c'"),
        ({"flip": 1}, "flip must be True or False, got 1"),
    ],
)
def test_every_setting_is_checked(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(dd.InputError, match=message):
        Schedule(**changes)


def test_values_are_kept_as_given_but_for_numpy_numbers() -> None:
    schedule = Schedule(epochs=np.int64(3), rate=np.float32(0.5), order=2, clip="auto", note="x")
    assert (schedule.epochs, schedule.rate, schedule.clip) == (3, 0.5, "auto")
    assert all(type(value) in (int, float) for value in (schedule.epochs, schedule.rate))
    assert type(schedule.order) is int  # must not become a float
    assert schedule.note == "x"


def test_the_docstring_lists_the_settings() -> None:
    assert Schedule.__doc__ is not None
    assert Schedule.__doc__.startswith("How long to train.\n\nArgs:\n    epochs: passes over")
    assert "    clip: largest gradient; None: no limit." in Schedule.__doc__
    assert "note" not in Schedule.__doc__


def test_declarations_are_listed() -> None:
    declared = {entry.name: entry for entry in list_settings(Schedule)}
    assert list(declared) == ["epochs", "rate", "order", "clip", "kind", "flip"]
    assert declared["epochs"].type is int
    assert (declared["clip"].default, declared["clip"].unset) == (None, "no limit")
    assert [entry.name for entry in declared.values() if not entry.option] == ["kind"]
    assert help_texts(Schedule)["rate"] == "learning rate"


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_every_field_of_the_library_is_declared(kind: Any) -> None:
    kind()  # the defaults must pass the checks
    declared = list_settings(kind)
    assert [entry.name for entry in declared] == [field.name for field in fields(kind)]
    for entry in declared:
        assert f"\n    {entry.name}: " in kind.__doc__
        assert not entry.help.endswith(".")
        assert entry.default is not None or entry.unset


def test_the_commands_have_defaults_for_their_options() -> None:
    for panels in (HARDEN, EVALUATE, REPRODUCE):
        names = [
            entry.name
            for kinds in panels.values()
            for kind in kinds
            for entry in list_settings(kind)
            if entry.option
        ]
        assert len(set(names)) == len(names)
        assert find_defaults(panels, {}).keys() == set(names)


def test_defaults_depend_on_the_data() -> None:
    names = ("epochs", "lr", "c", "d", "lam", "stages")
    digits = find_defaults(HARDEN, {"epochs": 1})
    others = find_defaults(HARDEN, {"data": "mnist", "lr": 1.0})
    assert [digits[name] for name in names] == [90, 1e-3, 2.5, 5.0, 15.0, False]
    assert [others[name] for name in names] == [5, 5e-4, None, None, 15.0, False]


def test_without_training_settings_harden_trains_in_stages() -> None:
    names = ("stages", "optimizer", "optimizer_steps", "lr", "mode", "gradient")
    for given in (
        {},
        {"seed": 3, "batch_size": 7, "flip": True},
        {"optimizer_steps": 9},
        {"max_accuracy_drop": 0.1},
    ):
        assert find_defaults(HARDEN, given)["stages"]
    for given in ({"c": 1.0}, {"gradient": "chord"}, {"patience": 2}, {"bounded": True}):
        assert not find_defaults(HARDEN, given)["stages"]
    values = find_defaults(HARDEN, {"data": "mnist"})
    assert [values[name] for name in names] == [True, "adam", None, 0.01, "inference", "chord"]
    assert find_defaults(HARDEN, {"stages": True, "lr": 1.0})["optimizer"] == "adam"
