"""Tests that unusable input of a command gives an error of one line, and exit code 2."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from commands import blobs, enter_user_folder, run
from deepdefense.app.run_folder import load_weights

pytest.importorskip("torch", reason="PyTorch is not installed")
pytestmark = pytest.mark.only("torch")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return enter_user_folder(tmp_path, monkeypatch)


def write_weights(folder: Path, **changes: Any) -> None:
    from safetensors.numpy import save_file

    shapes = {"1.weight": (8, 16), "1.bias": (8,), "3.weight": (3, 8), "3.bias": (3,)}
    arrays = {name: np.zeros(shape, np.float32) for name, shape in shapes.items()} | changes
    present = {name: value for name, value in arrays.items() if value is not None}
    save_file(present, folder / "w.safetensors")


UNUSABLE: list[tuple[dict[str, str], str]] = [
    ({"data": "nowhere.npz"}, "data must be digits, mnist, cifar10"),
    (
        {"network": "resnet"},
        "network must be mlp, bn-mlp, lenet, convnet, nin, alexnet, resnet18 or "
        "package.module:factory, got 'resnet'",
    ),
    ({"network": "no_such:thing"}, "No module named 'no_such'"),
    ({"network": "my_networks:absent"}, "has no attribute 'absent'"),
    ({"network": "my_networks:nothing"}, "takes no argument and returns a model"),
    ({"network": "lenet"}, "lenet takes images [c h w] of 16 x 16 pixels or more"),
    ({"weights": "nowhere.safetensors"}, "there is no file of weights nowhere.safetensors"),
    ({"weights": "my_networks.py"}, "my_networks.py is not a readable safetensors file"),
    ({"backend": "caffe"}, "no backend is called 'caffe'; known: jax, numpy, tensorflow, torch"),
    ({"backend": "numpy"}, "the numpy backend evaluates but does not train"),
    ({"device": "nowhere"}, "device 'nowhere' here"),
    ({"p": "0.5"}, "p must be a number from 1 to inf, got 0.5"),
    ({"lam": "-1"}, "lam must be finite, 0 or more, got -1"),
    ({"epochs": "many"}, "epochs"),
    ({"gradient": "exact"}, "gradient"),
    ({"no-such-option": "1"}, "no-such-option"),
    ({"out": "my_networks.py"}, "my_networks.py"),
    ({"out": "my_networks.py/run"}, "my_networks.py"),
    ({"out": "/proc/run"}, "/proc/run"),
    ({"out": "."}, "is not empty: choose another folder"),
]


@pytest.mark.parametrize(("changes", "message"), UNUSABLE, ids=lambda v: str(v)[:40])
def test_unusable_input_is_one_line_and_exit_code_2(
    folder: Path, capsys: pytest.CaptureFixture[str], changes: dict[str, str], message: str
) -> None:
    before = sorted(path.name for path in folder.iterdir())
    assert run(*blobs(**changes)) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    assert message in lines[0]
    after = sorted(path.name for path in folder.iterdir() if path.name != "__pycache__")
    assert after == before


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"3.bias": np.zeros(4, np.float32)}, "3.bias must have shape [3], it has [4]"),
        ({"3.bias": None}, "does not fit the network: it lacks 3.bias"),
        ({"extra": np.zeros(1, np.float32)}, "has extra, which it does not"),
        ({"3.bias": np.full(3, np.nan, np.float32)}, "3.bias holds NaN or infinite values"),
    ],
)
def test_weights_that_do_not_fit(
    folder: Path, capsys: pytest.CaptureFixture[str], changes: dict[str, Any], message: str
) -> None:
    write_weights(folder, **changes)
    assert run(*blobs(weights="w.safetensors", out="a")) == 2
    assert message in capsys.readouterr().err.replace("\n", " ")
    assert not (folder / "a").exists()


@pytest.mark.parametrize(
    ("key", "spoil", "message"),
    [
        ("y_train", lambda y: y - 1, "negative"),
        (
            "y_test",
            lambda y: y + 2,
            "must have all labels of the test set, none of its examples is of 3",
        ),
        ("y_train", lambda y: y + 1, "labels of the test set, none of its examples is of 0"),
        ("y_train", lambda y: y * 2, "of the test set, none of its examples is of 1"),
        ("x_test", lambda x: np.where(x > 2, np.nan, x), "NaN or infinite"),
        ("x_train", lambda x: x[:, :, :2], "shapes must agree"),
    ],
)
def test_data_that_cannot_be_used(
    folder: Path, capsys: pytest.CaptureFixture[str], key: str, spoil: Any, message: str
) -> None:
    arrays = dict(np.load(folder / "blobs.npz"))
    np.savez(folder / "blobs.npz", **{**arrays, key: spoil(arrays[key])})
    assert run(*blobs(out="a")) == 2
    assert message in capsys.readouterr().err.replace("\n", " ")
    assert not (folder / "a").exists()


def test_full_disk_is_one_line_and_leaves_nothing_half_written(folder: Path) -> None:
    """The test simulates a full disk by a limit on the size of files."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000))

    environment = os.environ | {"PYTHONDONTWRITEBYTECODE": "1"}
    result = subprocess.run(
        [sys.executable, "-m", "deepdefense", *blobs(out="a")],
        capture_output=True,
        text=True,
        preexec_fn=limit,
        env=environment,
        check=False,
    )
    assert result.returncode == 2
    assert "Traceback" not in result.stderr
    assert "error: " in result.stderr
    assert "too large" in result.stderr
    for path in (folder / "a").iterdir():
        assert not path.name.startswith("."), "a temporary file was left"
        if path.suffix == ".safetensors":
            load_weights(path)
