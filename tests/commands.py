"""Run commands on a user's data and network, for the tests of the command line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from blobs import TEST, TRAIN
from deepdefense.app import cli

FACTORY = """
import torch
def network():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 8), torch.nn.ReLU(),
                               torch.nn.Linear(8, 3))
def nothing(x):
    pass
"""

BLOBS = {
    "data": "blobs.npz",
    "network": "my_networks:network",
    "epochs": "2",
    "lr": "0.01",
    "c": "2",
    "batch-size": "50",
}


def enter_user_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Write a user's data and network factory into a folder, and make it the working folder."""
    monkeypatch.chdir(folder)
    (x, y), (x_test, y_test) = TRAIN, TEST
    np.savez(folder / "blobs.npz", x_train=x, y_train=y, x_test=x_test, y_test=y_test)
    (folder / "my_networks.py").write_text(FACTORY)
    return folder


def blobs(*flags: str, **changes: str) -> list[str]:
    """Return the arguments that harden the user's network on the user's data."""
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
