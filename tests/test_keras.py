"""Tests of Keras on each of its backends.

Each backend has its own process, because Keras cannot change its backend after its import.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

CHECKS = sorted(Path(__file__).parent.glob("keras_*checks.py"))
BACKENDS = [
    pytest.param(name, marks=pytest.mark.only(name)) for name in ("tensorflow", "jax", "torch")
]


@pytest.mark.parametrize("backend", BACKENDS)
def test_keras(backend: str) -> None:
    # Without conftest.py, because Keras fails under its strict settings for JAX.
    command = [sys.executable, "-m", "pytest", "--noconftest", "-q", "-p", "no:cacheprovider"]
    environment = {name: value for name, value in os.environ.items() if name[:4] != "JAX_"} | {
        "KERAS_BACKEND": backend,
        "TF_CPP_MIN_LOG_LEVEL": "2",
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",  # because compiling takes longer than running
        "OMP_NUM_THREADS": "1",
    }
    run = subprocess.run(
        [*command, *map(str, CHECKS)],
        cwd=CHECKS[0].parents[1],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stdout + run.stderr
