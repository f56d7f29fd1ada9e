"""The examples of docs/examples run as they stand, and do what they promise."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parent.parent / "docs" / "examples"
OF = {"keras_fit": "tensorflow"}  # on Keras's other backends: tests/keras_checks.py


def home(path: Path) -> str:
    return OF.get(path.stem, path.stem.partition("_")[0])


@pytest.mark.parametrize(
    "path",
    [
        pytest.param(path, id=path.stem, marks=pytest.mark.only(home(path)))
        for path in sorted(EXAMPLES.glob("*.py"))
    ],
)
def test_example_hardens_its_network(path: Path) -> None:
    before, after = runpy.run_path(str(path))["main"]()
    assert after.accuracy >= before.accuracy - 0.02
    assert after.rho_2 > 1.15 * before.rho_2
    assert after.success == 1
