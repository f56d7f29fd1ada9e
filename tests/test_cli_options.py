"""Tests of the options of the commands, which are made from declared settings, and the help."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from cyclopts import App

from commands import run
from deepdefense.app.cli.options import with_options
from deepdefense.app.jobs.defaults import find_defaults
from deepdefense.app.jobs.settings import EVALUATE, HARDEN, REPRODUCE, Panels
from deepdefense.seam.settings import setting

pytest.importorskip("torch", reason="PyTorch is not installed")
pytestmark = pytest.mark.only("torch")


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
    for name in (*find_defaults(panels, {}), "out"):
        assert f"--{name.replace('_', '-')}" in shown


def test_help_tells_defaults(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("harden", "--help") == 0
    shown = " ".join(capsys.readouterr().out.replace("│", " ").split())
    for text in (
        "--epochs INT Passes over the training examples. [default: 5; digits: 90]",
        "[default: fitted to the network's own rho; digits: 2.5]",
        "[default: no limit; in stages: auto]",
        "gradient chord, candidates 2, steps 1",
    ):
        assert text in shown
    assert "--momentum" not in shown  # not an option: only Python code can set it


def test_a_declared_setting_becomes_an_option() -> None:
    """The command receives only the options that the user gave, without defaults."""

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
