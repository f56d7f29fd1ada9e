"""Keras on each of its backends, in a process of its own: which one is fixed at Keras's import."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

CHECKS = Path(__file__).with_name("keras_checks.py")
BACKENDS = [
    pytest.param(name, marks=pytest.mark.only(name)) for name in ("tensorflow", "jax", "torch")
]


@pytest.mark.parametrize("backend", BACKENDS)
def test_keras(backend: str) -> None:
    # Without `conftest`, whose strictness about JAX's types Keras itself does not pass.
    command = [sys.executable, "-m", "pytest", "--noconftest", "-q", "-p", "no:cacheprovider"]
    environment = {name: value for name, value in os.environ.items() if name[:4] != "JAX_"} | {
        "KERAS_BACKEND": backend,
        "TF_CPP_MIN_LOG_LEVEL": "2",
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",  # compiled once, run once
        "OMP_NUM_THREADS": "1",
    }
    run = subprocess.run(
        [*command, str(CHECKS)],
        cwd=CHECKS.parents[1],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stdout + run.stderr
