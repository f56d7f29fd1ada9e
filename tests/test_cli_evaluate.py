"""Tests of `deepdefense evaluate`: its report, its messages and its exit codes."""

from __future__ import annotations

import json
from collections.abc import Callable
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


def test_evaluates_and_gives_an_exit_code(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*blobs(out="a")) == 0
    capsys.readouterr()
    judged = ["evaluate", "--data", "blobs.npz", "--network", "my_networks:network"]
    judged += ["--weights", "a/hardened.safetensors", "--reference", "a/reference.safetensors"]
    assert run(*judged, "--eps", "0.1", "--fail-under", "0.5", "--examples", "30") == 0
    captured = capsys.readouterr()
    page = Path(captured.out.strip())
    assert page.parent.name.startswith("evaluate-blobs-network-")
    report = json.loads((page.parent / "report.json").read_text())
    assert (report["n"], report["data"]["of"], report["preset"]) == (30, 60, "quick")
    assert report["comparison"]["better"] > 0.5
    assert report["reference"]["network"]["weights"] == "a/reference.safetensors"
    assert "are fooled within" in captured.err.replace("\n", " ")
    assert run(*judged, "--eps", "9", "--fail-under", "0.5", "--out", "low") == 1
    assert run(*judged, "--fail-under", "0.5") == 2
    assert "needs --eps" in capsys.readouterr().err.replace("\n", " ")
    assert run("evaluate", "--network", "mlp", "--data", "blobs.npz") == 2
    assert "network mlp has no weights of its own" in capsys.readouterr().err.replace("\n", " ")
    assert run("evaluate", "--resume") == 2
    assert "no unfinished run in runs/ of evaluate" in capsys.readouterr().err.replace("\n", " ")


def test_evaluates_what_was_hardened(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def read_message() -> str:
        return capsys.readouterr().err.replace("\n", " ")

    assert run("evaluate") == 2
    assert "there is nothing to evaluate: name the folder of a run of harden" in read_message()
    assert run(*blobs(seed="3")) == 0
    (first,) = Path("runs").iterdir()
    reference = first / "reference.safetensors"
    assert run(*blobs(out="again", weights=str(reference))) == 0
    capsys.readouterr()
    for arguments, seed in (((), 3), (("again", "--seed", "1"), 1)):
        assert run("evaluate", *arguments, "--examples", "30") == 0
        report = json.loads(
            (Path(capsys.readouterr().out.strip()).parent / "report.json").read_text()
        )
        home = Path(arguments[0]) if arguments else first
        assert report["network"]["weights"] == str(home / "hardened.safetensors")
        assert report["reference"]["network"]["weights"] == str(reference)
        assert (report["data"]["name"], report["seed"]) == ("blobs", seed)
    (first / "report.json").unlink()
    for path, message in (
        ("nowhere", "there is no run of harden in nowhere"),
        (str(first), "is not finished: resume it first"),
        (next(map(str, Path("runs").glob("evaluate-*"))), "does not say which network and data"),
    ):
        assert run("evaluate", path) == 2
        assert message in read_message()


def test_labels_are_matched_with_the_logits_of_the_network(folder: Path) -> None:
    """Labels 1..3 mean the same as 0..2, and a network may have more classes than occur."""

    def write(name: str, change: Callable[[np.ndarray], np.ndarray], keep: np.ndarray) -> None:
        arrays = dict(np.load("blobs.npz"))
        for part in ("train", "test"):
            rows = np.isin(arrays[f"y_{part}"], keep)
            arrays[f"x_{part}"] = arrays[f"x_{part}"][rows]
            arrays[f"y_{part}"] = change(arrays[f"y_{part}"][rows])
        np.savez(name, **arrays)

    def harden(out: str, **changes: str) -> dict[str, Any]:
        assert run(*blobs(out=out, epochs="1", **changes)) == 0
        report = json.loads(Path(out, "report.json").read_text())
        warned = "".join(report["warnings"])
        assert ("no training example has 1" in warned) == out.startswith("skip")
        weights = load_weights(Path(out, "hardened.safetensors"))
        last = max(name for name in weights if name.endswith("bias"))
        return {"shape": weights[last].shape, **report["after"]}

    write("from-1.npz", lambda y: y + 1, np.arange(3))
    write("two.npz", lambda y: y, np.array([0, 2]))
    for network in ("my_networks:network", "mlp"):
        whole = harden(f"whole-{network}", network=network)
        weights = f"whole-{network}/reference.safetensors"
        two = harden(f"skip-{network}", network=network, data="two.npz", weights=weights)
        assert two["shape"] == whole["shape"] == (3,)
        assert two["n"] < whole["n"] == 60
    assert harden("from-1", network=network, data="from-1.npz") == whole
    # A network of the zoo that is trained first gets only the classes that occur.
    assert run(*blobs(out="own", epochs="1", network="mlp", data="two.npz")) == 0
    report = json.loads(Path("own", "report.json").read_text())
    assert (report["data"]["classes"], report["warnings"]) == (2, [])
    for out in ("skip-mlp", "from-1"):
        assert run("evaluate", out, "--examples", "4") == 0
