"""The command line: the files that it writes, its messages and its exit codes."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cyclopts import App

from blobs import TEST, TRAIN, Interrupt
from deepdefense.app import cli
from deepdefense.app.cli.options import with_options
from deepdefense.app.jobs.settings import EVALUATE, HARDEN, REPRODUCE, Panels, find_defaults
from deepdefense.app.run_folder import load_weights
from deepdefense.seam.settings import setting

pytest.importorskip("torch", reason="PyTorch is not installed")
pytestmark = pytest.mark.only("torch")

FACTORY = """
import torch
def network():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 8), torch.nn.ReLU(),
                               torch.nn.Linear(8, 3))
def nothing(x):
    pass
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Change into a folder with the data and the network of a user."""
    monkeypatch.chdir(tmp_path)
    (x, y), (x_test, y_test) = TRAIN, TEST
    np.savez(tmp_path / "blobs.npz", x_train=x, y_train=y, x_test=x_test, y_test=y_test)
    (tmp_path / "my_networks.py").write_text(FACTORY)
    return tmp_path


BLOBS = {
    "data": "blobs.npz",
    "network": "my_networks:network",
    "epochs": "2",
    "lr": "0.01",
    "c": "2",
    "batch-size": "50",
}


def blobs(*flags: str, **changes: str) -> list[str]:
    """Return the command that hardens the user's network on the user's data."""
    options = BLOBS | {name.replace("_", "-"): value for name, value in changes.items()}
    return [
        "harden",
        *(part for name, value in options.items() for part in (f"--{name}", value)),
        *flags,
    ]


def run(*arguments: str) -> int:
    """Run a command and return its exit code."""
    with pytest.raises(SystemExit) as exit_:
        cli.main(list(arguments))
    return int(exit_.value.code or 0)


def test_hardens_without_an_argument(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The default run reaches what the README promises: 1.6 times the rho, the same accuracy."""
    assert run("harden") == 0
    (out,) = (folder / "runs").iterdir()
    assert out.name.startswith("digits-mlp-")
    assert {path.name for path in out.iterdir()} == {
        "report.json",
        "report.html",
        "hardened.safetensors",
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
    assert config["clip"] > 0  # the measured median
    assert config["d"] > 0  # fitted, because only c was given

    assert run(*blobs("--fast", "--bounded", out="d")) == 2
    assert "has no range of pixels to keep within" in capsys.readouterr().err

    # Harden the result again: the figures after the first run are those before the second.
    weights = "a/hardened.safetensors"
    assert run(*blobs(p="inf", weights=weights, epochs="0", out="b")) == 0
    again = json.loads((folder / "b" / "report.json").read_text())
    assert again["before"] == again["after"] == report["after"]
    assert again["network"]["weights"] == weights
    assert not (folder / "b" / "reference.safetensors").exists()


def test_keeps_within_the_range_of_pixels(folder: Path) -> None:
    """The bounds are the range of pixels minus the mean image, as the network takes its input."""
    y = np.arange(80) % 2
    x = np.random.default_rng(0).integers(0, 60, (80, 4, 4)) + 150 * y[:, None, None]
    np.savez("pixels.npz", x=x.astype(np.uint8), y=y)
    arguments = ("harden", "--data", "pixels.npz", "--fast", "--steps", "3", "--epochs", "1")
    assert run(*arguments, "--batch-size", "1", "--bounded", "--out", "p") == 0
    report = json.loads((folder / "p" / "report.json").read_text())
    low, high = report["config"]["bounds"]
    assert low.startswith("array [1, 4, 4] from -")
    assert high.startswith("array [1, 4, 4] from ")


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
        ("y_test", lambda y: y + 2, "training must have all labels"),
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


def test_full_disk_is_one_line_and_leaves_nothing_half_written(folder: Path) -> None:
    """A limit on the size of a file stands in for a full disk."""

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


def test_backends_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("backends") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(": ")[0] for line in lines] == ["jax", "numpy", "tensorflow", "torch"]
    assert {"numpy: available", "torch: available"} <= set(lines)


@pytest.mark.parametrize(
    ("command", "panels"), [("harden", HARDEN), ("evaluate", EVALUATE), ("reproduce", REPRODUCE)]
)
def test_help_names_every_option(
    capsys: pytest.CaptureFixture[str], command: str, panels: Panels
) -> None:
    assert run(command, "--help") == 0
    shown = capsys.readouterr().out
    for name in (*find_defaults(panels), "out"):
        assert f"--{name.replace('_', '-')}" in shown


def test_help_tells_defaults(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("harden", "--help") == 0
    shown = " ".join(capsys.readouterr().out.replace("│", " ").split())
    for text in (
        "--epochs INT Passes over the training examples. [default: 5; digits: 90]",
        "[default: fitted to the network's own rho; digits: 2.5]",
        "[default: no limit]",
        "gradient chord, candidates 2, steps 1",
    ):
        assert text in shown
    assert "--momentum" not in shown  # for the library alone


def test_a_declared_setting_becomes_an_option() -> None:
    """The command receives the options that were given, and no defaults."""

    @dataclass(frozen=True)
    class Extra:
        lr: float = setting(0.1, "learning rate")
        layers: tuple[int, ...] = setting((1,), "layers")
        dry: bool = setting(False, "only look")

    received: list[dict[str, Any]] = []

    @with_options({"Training": (Extra,)})
    def command(*, out: Path = Path(), **options: Any) -> int:
        received.append(options)
        return 0

    app = App(result_action="return_value")
    app.default(command)
    app(["--layers", "3", "4", "--dry"], exit_on_error=False)
    app(["--out", "a"], exit_on_error=False)
    assert received == [{"layers": (3, 4), "dry": True}, {}]


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
