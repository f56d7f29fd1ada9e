"""Tests of `deepdefense harden`: the files that it writes, its messages and its exit codes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import deepdefense as dd
from blobs import Interrupt
from commands import blobs, enter_user_folder, run
from deepdefense.app.run_folder import load_weights

pytest.importorskip("torch", reason="PyTorch is not installed")
pytestmark = pytest.mark.only("torch")


def build_mlp(weights: Path) -> Callable[[np.ndarray], np.ndarray]:
    """Build the network that `--network mlp` means for 16 features and three classes."""
    import torch

    with dd.use_backend("torch"):
        model = dd.build(dd.zoo.mlp((16,), 3), weights)
    return lambda x: np.asarray(model(torch.from_numpy(x)).detach())


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return enter_user_folder(tmp_path, monkeypatch)


def test_hardens_without_an_argument(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The README says of the default run: 1.6 times the rho_2, at the same accuracy."""
    assert run("harden") == 0
    (out,) = (folder / "runs").iterdir()
    assert out.name.startswith("digits-mlp-")
    assert {path.name for path in out.iterdir()} == {
        "report.json",
        "report.html",
        "hardened.safetensors",
        "preprocessing.safetensors",
        "reference.safetensors",
        "settings.json",
    }
    report = json.loads((out / "report.json").read_text())
    assert report["stopped"] is None
    assert report["after"]["rho_2"] >= 1.6 * report["before"]["rho_2"]
    assert report["after"]["accuracy"] >= report["before"]["accuracy"] - 0.005
    assert report["data"]["name"] == "digits"
    assert report["network"]["parameters"] == 109_160
    captured = capsys.readouterr()
    assert captured.out.strip() == str(out.relative_to(folder) / "report.html")
    assert "rho_2 rose from" in captured.err.replace("\n", " ")


def test_takes_data_networks_and_settings_of_the_user(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*blobs(p="inf", gradient="implicit", seed="3", out="a")) == 0
    report = json.loads((folder / "a" / "report.json").read_text())
    config = report["config"]
    assert (config["p"], config["gradient"], config["seed"]) == ("inf", "implicit", 3)
    assert (config["epochs"], config["lr"], config["c"], config["batch_size"]) == (2, 0.01, 2, 50)
    assert report["network"]["name"] == "my_networks:network"
    assert report["network"]["weights"].startswith("trained in this run")
    assert report["after"]["rho_p"] > 0

    guarded = {"max_accuracy_drop": "0.5", "patience": "2", "warmup": "0.5", "clip": "auto"}
    switches = ("--fast", "--flip", "--anneal")
    assert run(*blobs(*switches, candidates="3", shift="1", out="c", **guarded)) == 0
    config = json.loads((folder / "c" / "report.json").read_text())["config"]
    assert (config["gradient"], config["candidates"], config["steps"]) == ("chord", 3, 1)
    assert (config["max_accuracy_drop"], config["patience"], config["warmup"]) == (0.5, 2, 0.5)
    assert (config["flip"], config["shift"], config["anneal"]) == (True, 1, True)
    assert config["clip"] > 0  # "auto" became the measured median
    assert config["d"] > 0  # d is fitted, because only c was given

    assert run(*blobs("--fast", "--bounded", out="d")) == 2
    assert "has no range of pixels to keep within" in capsys.readouterr().err

    # Harden the result again: `before` of the second report equals `after` of the first.
    weights = "a/hardened.safetensors"
    assert run(*blobs(p="inf", weights=weights, epochs="0", out="b")) == 0
    again = json.loads((folder / "b" / "report.json").read_text())
    assert again["before"] == again["after"] == report["after"]
    assert again["network"]["weights"] == weights
    assert not (folder / "b" / "reference.safetensors").exists()


def test_keeps_within_the_range_of_pixels(folder: Path) -> None:
    """The bounds are those of pixels minus the mean image, like the inputs of the network."""
    y = np.arange(80) % 2
    x = np.random.default_rng(0).integers(0, 60, (80, 4, 4)) + 150 * y[:, None, None]
    np.savez("pixels.npz", x=x.astype(np.uint8), y=y)
    arguments = ("harden", "--data", "pixels.npz", "--fast", "--steps", "3", "--epochs", "1")
    assert run(*arguments, "--batch-size", "1", "--bounded", "--out", "p") == 0
    report = json.loads((folder / "p" / "report.json").read_text())
    low, high = report["config"]["bounds"]
    assert low.startswith("array [1, 4, 4] from -")
    assert high.startswith("array [1, 4, 4] from ")


def test_hardens_and_evaluates_on_a_table(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`preprocessing.safetensors` and the weights make the network usable on the raw features."""
    arrays = np.load("blobs.npz")
    raw = arrays["x_train"].reshape(150, 16) * np.logspace(0, 3, 16) + 5
    kinds = np.array(["bee", "cow", "dog"])[arrays["y_train"]]
    lines = [",".join([*(f"f{i}" for i in range(16)), "kind"])]
    lines += [",".join([*map(repr, map(float, x)), y]) for x, y in zip(raw, kinds, strict=True)]
    (folder / "blobs.csv").write_text("\n".join(lines))
    table = {"data": "blobs.csv", "label": "kind", "network": "mlp", "epochs": "1"}
    assert run(*blobs("--standardize", out="a", **table)) == 0
    assert "differ in scale" not in capsys.readouterr().err.replace("\n", " ")
    report = json.loads((folder / "a" / "report.json").read_text())
    assert report["data"]["preprocessing"].startswith("each feature minus its mean")
    file = load_weights(folder / "a" / "preprocessing.safetensors")
    model = build_mlp(folder / "a" / "hardened.safetensors")
    x = ((raw - file["offset"]) / file["divisor"]).astype(np.float32)
    right = model(x).argmax(1) == arrays["y_train"]
    assert right.mean() > 0.95
    assert run("evaluate", "a", "--examples", "10") == 0
    home = Path(capsys.readouterr().out.split()[-1]).parent
    evaluated = json.loads((home / "report.json").read_text())
    assert evaluated["accuracy"] > 0.8
    assert evaluated["data"]["class_names"] == ["bee", "cow", "dog"]
    assert json.loads((home / "settings.json").read_text())["standardize"] is True


@pytest.mark.parametrize(("task", "at"), [("reference", 10), ("harden", 5)])
def test_interrupted_and_resumed(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    task: str,
    at: int,
) -> None:
    assert run(*blobs(out="whole")) == 0

    class InterruptingWatcher(Interrupt):
        def __init__(self) -> None:
            super().__init__(task, at)

        def __enter__(self) -> InterruptingWatcher:
            return self

        def __exit__(self, *_: object) -> None:
            pass

    with monkeypatch.context() as patched:
        patched.setattr("deepdefense.app.cli.harden.TerminalWatcher", InterruptingWatcher)
        assert run(*blobs(out="runs/cut")) == 130
    assert "--resume" in capsys.readouterr().err
    assert run(*blobs(out="runs/cut")) == 2
    assert run("harden", "--resume", "--out", "nowhere") == 2
    assert "there is no run to resume in nowhere" in capsys.readouterr().err
    assert run("harden", "--resume", "--lr", "0.5") == 2
    assert "began with lr = 0.01, not 0.5" in capsys.readouterr().err.replace("\n", " ")
    assert run("harden", "--resume") == 0  # the newest unfinished run
    whole, cut = (load_weights(Path(p) / "hardened.safetensors") for p in ("whole", "runs/cut"))
    assert all(np.array_equal(value, cut[name]) for name, value in whole.items())
    assert run("harden", "--resume") == 2
    assert "no unfinished run in runs/" in capsys.readouterr().err


def test_stops_early_with_a_message_and_exit_code_1(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*blobs(lr="1e30", out="a")) == 1
    assert "no longer finite" in capsys.readouterr().err.replace("\n", " ")
    weights = load_weights(folder / "a" / "hardened.safetensors")
    assert all(np.isfinite(value).all() for value in weights.values())


def test_data_that_changed_are_not_resumed(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("deepdefense.app.jobs.harden.harden_in_folder", interrupted)
        assert run(*blobs(out="a")) == 130
    arrays = dict(np.load(folder / "blobs.npz"))
    np.savez(folder / "blobs.npz", **{**arrays, "x_test": arrays["x_test"] + 1})
    assert run("harden", "--out", "a", "--resume") == 2
    assert "have changed: start another run" in capsys.readouterr().err.replace("\n", " ")
