"""Tests of `deepdefense evaluate`: its report, its messages and its exit codes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from commands import blobs, enter_user_folder, run

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
