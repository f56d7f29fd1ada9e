"""Tests of interrupted hardening: resuming gives the same result, and no file is half-written."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import deepdefense as dd
from blobs import RECIPE, TEST, TRAIN, Interrupt
from deepdefense.app.run_folder import RunFolder
from deepdefense.defenses.objective import Objective
from deepdefense.evaluation.dataset import dataset_from_arrays
from deepdefense.evaluation.rho_protocol import RHO_ATTACK
from deepdefense.seam.progress import Watcher
from deepdefense.seam.training_contract import training_backend
from deepdefense.training.loop import run_training
from deepdefense.training.monitor import Monitor
from torch_blobs import harden, have_same_weights, train_network

pytestmark = pytest.mark.only("torch")


@pytest.fixture(scope="module")
def model() -> Any:
    return train_network()


# An epoch has 8 steps, so these interruptions are in epoch 1, in epoch 2, and after training.
@pytest.mark.parametrize(("task", "at"), [("harden", 3), ("harden", 12), ("evaluate after", 1)])
def test_interrupted_run_resumes_to_the_same_result(
    model: Any, tmp_path: Path, task: str, at: int
) -> None:
    recipe = replace(RECIPE, flip=True, shift=1)
    expected, report = harden(model, recipe=recipe)
    with pytest.raises(KeyboardInterrupt):
        harden(model, recipe=recipe, out=tmp_path / "run", watcher=Interrupt(task, at))
    assert not (tmp_path / "run" / "report.json").exists()
    with pytest.raises(dd.InputError, match="is not empty: go on with resume"):
        harden(model, recipe=recipe, out=tmp_path / "run")
    hardened, resumed = harden(model, recipe=recipe, out=tmp_path / "run", resume=True)
    assert have_same_weights(hardened, expected)
    assert resumed.after == report.after
    for one, other in zip(resumed.history, report.history, strict=True):
        assert replace(one, seconds=0) == replace(other, seconds=0)
    with pytest.raises(dd.InputError, match="is complete: there is nothing to resume"):
        harden(model, recipe=recipe, out=tmp_path / "run", resume=True)


def test_resuming_with_other_settings_raises(model: Any, tmp_path: Path) -> None:
    with pytest.raises(dd.InputError, match="there is no run to resume in"):
        harden(model, out=tmp_path / "run", resume=True)
    with pytest.raises(dd.InputError, match="resume needs the folder of the run: out"):
        harden(model, resume=True)
    with pytest.raises(KeyboardInterrupt):
        harden(model, out=tmp_path / "run", watcher=Interrupt("harden", 12))
    with pytest.raises(dd.InputError, match="began with recipe = "):
        harden(model, out=tmp_path / "run", resume=True, recipe=replace(RECIPE, lr=1.0))
    other, _ = harden(model, recipe=replace(RECIPE, epochs=1))
    with pytest.raises(dd.InputError, match="began with weights = "):
        harden(other, out=tmp_path / "run", resume=True)


def test_a_stopped_run_resumes_as_stopped(model: Any, tmp_path: Path) -> None:
    recipe = replace(RECIPE, lr=1e30)
    with pytest.raises(KeyboardInterrupt):
        harden(model, recipe=recipe, out=tmp_path, watcher=Interrupt("evaluate after", 1))
    hardened, report = harden(model, recipe=recipe, out=tmp_path, resume=True)
    assert report.stopped is not None
    assert have_same_weights(hardened, model)


def test_checkpoint_is_never_half_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = RunFolder.create(tmp_path / "run", {"a": 1})
    run.save("w.safetensors", {"x": np.arange(3.0)}, {"about": 1})

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(OSError, match="No space left"):
        run.save("w.safetensors", {"x": np.arange(9.0)}, {"about": 2})
    saved = run.load("w.safetensors")
    assert saved is not None
    np.testing.assert_array_equal(saved[0]["x"], np.arange(3.0))
    assert saved[1] == {"about": 1}
    assert {path.name for path in run.path.iterdir()} == {"settings.json", "w.safetensors"}


def test_trainer_restores_an_earlier_state(model: Any) -> None:
    backend = training_backend("torch")
    trainer = RECIPE.make_trainer(backend, backend.copy(model))
    start = trainer.state()
    assert set(start) == {f"weights.{name}" for name in model.state_dict()}
    monitor = Monitor.draw(backend, dataset_from_arrays(*TRAIN, *TEST), 0, RHO_ATTACK)
    options: Any = {
        "recipe": RECIPE,
        "objective": Objective(),
        "checkpoint": None,
        "watcher": Watcher(),
    }
    run_training("plain", trainer, monitor, **options)
    end = trainer.state()
    assert any(key.startswith("optimizer.momentum_buffer.") for key in end)
    trainer.restore(start)
    run_training("plain", trainer, monitor, **options)
    assert all(np.array_equal(value, end[key]) for key, value in trainer.state().items())
