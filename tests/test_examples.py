"""Tests that the programs in docs/examples run unchanged and harden their networks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parent.parent / "docs" / "examples"
BACKENDS = {"keras": "tensorflow"}  # keras_checks.py tests other backends of Keras
# This replaces `evaluate` by a measurement of accuracy and rho. The rest of `evaluate` is slow, and
# tested elsewhere.
RUN = """
import json, runpy, sys
import blobs, deepdefense
deepdefense.evaluate = blobs.summarize
reports = runpy.run_path(sys.argv[1])["main"]()
print(json.dumps([report.as_dict() for report in reports]))
"""


def find_backend(path: Path) -> str:
    framework = path.stem.partition("_")[0]
    return BACKENDS.get(framework, framework)


@pytest.mark.parametrize(
    "path",
    [
        pytest.param(path, id=path.stem, marks=pytest.mark.only(find_backend(path)))
        for path in sorted(EXAMPLES.glob("*.py"))
    ],
)
def test_example_hardens_its_network(path: Path) -> None:
    """The program runs in a new interpreter, without the strict settings of the tests."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("JAX_", "KERAS_"))}
    folders = (str(Path(__file__).parent), os.environ.get("PYTHONPATH"))
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, folders))
    result = subprocess.run(
        [sys.executable, "-c", RUN, str(path)], env=environment, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    before, after = json.loads(result.stdout.splitlines()[-1])
    assert after["accuracy"] >= before["accuracy"] - 0.02
    assert after["rho_2"] > 1.15 * before["rho_2"]
    assert after["success"] == 1
