"""The examples of docs/examples run as they stand, and do what they promise."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parent.parent / "docs" / "examples"
OF = {"keras": "tensorflow"}  # on Keras's other backends: tests/keras_checks.py
# What else `evaluate` does takes most of the time and is tested elsewhere.
RUN = """
import json, runpy, sys
import blobs, deepdefense
deepdefense.evaluate = blobs.summarize
reports = runpy.run_path(sys.argv[1])["main"]()
print(json.dumps([report.as_dict() for report in reports]))
"""


def home(path: Path) -> str:
    framework = path.stem.partition("_")[0]
    return OF.get(framework, framework)


@pytest.mark.parametrize(
    "path",
    [
        pytest.param(path, id=path.stem, marks=pytest.mark.only(home(path)))
        for path in sorted(EXAMPLES.glob("*.py"))
    ],
)
def test_example_hardens_its_network(path: Path) -> None:
    """In an interpreter of its own, as a user has it: without the tests' strict modes."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("JAX_", "KERAS_"))}
    found = (str(Path(__file__).parent), os.environ.get("PYTHONPATH"))
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, found))
    result = subprocess.run(
        [sys.executable, "-c", RUN, str(path)], env=environment, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    before, after = json.loads(result.stdout.splitlines()[-1])
    assert after["accuracy"] >= before["accuracy"] - 0.02
    assert after["rho_2"] > 1.15 * before["rho_2"]
    assert after["success"] == 1
