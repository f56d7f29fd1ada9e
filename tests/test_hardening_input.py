"""Tests of the errors of `dd.harden` for unusable data, models, settings and folders."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import deepdefense as dd
from blobs import RECIPE, TEST, TRAIN
from torch_blobs import harden, torch, train_network

pytestmark = pytest.mark.only("torch")


@pytest.fixture(scope="module")
def model() -> Any:
    return train_network()


class DictModel(torch.nn.Module):
    """A model that returns a dictionary instead of logits, as in many libraries."""

    def __init__(self, inner: Any) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Any) -> dict[str, Any]:
        return {"logits": self.inner(x)}


def test_bad_data_raise(model: Any) -> None:
    x, y = TRAIN
    with pytest.raises(dd.InputError, match=r"does not take examples of shape \[5\]"):
        dd.harden(model, (np.ones((9, 5)), y[:9]), (np.ones((9, 5)), y[:9]))
    with pytest.raises(dd.InputError, match=r"must return logits .* for 8 classes"):
        dd.harden(model, (x[:8], np.arange(8)), (x[:8], np.arange(8)))
    with pytest.raises(dd.InputError, match="NaN or infinite"):
        dd.harden(model, (x * np.nan, y), TEST)
    with pytest.raises(dd.InputError, match=r"train must be a pair .* got DataLoader"):
        dd.harden(model, torch.utils.data.DataLoader(TRAIN), TEST)  # type: ignore[arg-type]
    with pytest.raises(dd.InputError, match="integers"):
        dd.harden(model, (x, y * 0.5), TEST)
    for data in ((x, y[:7]), (x, np.eye(3)[y]), (x[:0], y[:0])):
        with pytest.raises(dd.InputError, match=r"label|no example"):
            dd.calibrate(model, *data)


@pytest.mark.parametrize("skipped", [0, 1, 2])
def test_labels_may_skip_a_class_of_the_network(model: Any, skipped: int) -> None:
    data = [(x[y != skipped], y[y != skipped]) for x, y in (TRAIN, TEST)]
    _, report = dd.harden(model, data[0], data[1], recipe=replace(RECIPE, epochs=1))
    (warning,) = report.warnings
    assert f"the network has 3 classes, of which no training example has {skipped}: " in warning
    assert report.data["classes"] == 3
    # The test set may also have a class that the training set lacks.
    _, report = dd.harden(model, data[0], TEST, recipe=replace(RECIPE, epochs=0))
    assert report.before.n == 60
    assert warning in report.warnings


def test_features_of_unequal_scale_are_warned_of() -> None:
    rng = np.random.default_rng(0)
    y = np.arange(60) % 2
    x = rng.normal(size=(60, 4)) + y[:, None]
    torch.manual_seed(0)
    model = torch.nn.Linear(4, 2)

    def warn(x: np.ndarray) -> list[str]:
        _, report = dd.harden(model, (x, y), (x, y), recipe=dd.Recipe(epochs=0))
        return [line for line in report.warnings if "differ in scale" in line]

    x /= x.std(0)
    (line,) = warn(x * [1, 0.01, 1, 3])
    assert "go from 0.01 (x[:, 1]) to 3 (x[:, 3]), 300 times as much" in line
    assert "--standardize" in line
    rare = np.where(np.arange(60) < 1, 1e-6, 0)  # no scale can be seen in one value
    for others in ([1, 0.01, 1, 0.9], [1, 0, 1, 1], [1e6] * 4):
        assert warn(x * others) == []
    assert warn(np.concatenate([x[:, :3], rare[:, None]], 1)) == []


def test_pictures_are_not_warned_of(model: Any) -> None:
    x, y = TRAIN  # images [1 4 4]
    _, report = harden(model, recipe=replace(RECIPE, epochs=0))
    assert report.warnings == ()
    shades = np.logspace(0, 3, 4)[:, None]
    _, report = dd.harden(model, (x * shades, y), (x * shades, y), recipe=dd.Recipe(epochs=0))
    assert not any("scale" in line for line in report.warnings)


def test_bad_models_raise(model: Any) -> None:
    with pytest.raises(dd.InputError, match="it returned probabilities"):
        harden(torch.nn.Sequential(model, torch.nn.Softmax(1)))
    with pytest.raises(dd.InputError, match=r"nothing else, it returned dict: wrap it"):
        harden(DictModel(model))
    with pytest.raises(dd.InputError, match=r"no parameters to train .* function"):
        dd.harden(lambda x: model(x), tuple(map(torch.tensor, TRAIN)), TEST)
    with pytest.raises(dd.InputError, match="every parameter of the model is frozen"):
        harden(copy.deepcopy(model).requires_grad_(False))


def test_bad_settings_raise_before_the_folder_is_created(model: Any, tmp_path: Path) -> None:
    with pytest.raises(dd.InputError, match="sets all 150 training examples aside"):
        harden(model, out=tmp_path / "run", guard=dd.Guard(patience=1, validation=0.999))
    assert not (tmp_path / "run").exists()
    with pytest.raises(dd.InputError, match="shift must be less than the sides of the images"):
        harden(model, recipe=replace(RECIPE, shift=4), out=tmp_path / "not-begun")
    assert not (tmp_path / "not-begun").exists()
    with pytest.raises(dd.InputError, match="TRADES has none to calibrate"):
        dd.calibrate(model, *TRAIN, dd.baselines.TRADES())
    with pytest.raises(dd.InputError, match="defense must be of the class Objective, got 'trades'"):
        harden(model, defense="trades")
    with (
        dd.use_backend("numpy"),
        pytest.raises(dd.InputError, match="evaluates but does not train"),
    ):
        dd.harden(model, TRAIN, TEST)


def test_a_folder_with_other_files_raises(model: Any, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("precious")
    with pytest.raises(dd.InputError, match="is not empty: choose another folder"):
        harden(model, out=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
