"""Tests with a third party's backend, which the library finds and which passes the kit.

Faulty versions of this backend must fail the kit. The backend is installed only for the
interpreters that these tests start, so that it does not affect other tests.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

import pytest

import deepdefense as dd
from deepdefense.testing import BackendTests
from deepdefense.testing.primitives import PrimitiveTests

pytestmark = pytest.mark.only("numpy")

PLUGIN = Path(__file__).parent / "plugin"  # on the path, it counts as installed

USER = """\
from deepdefense.testing import BackendTests

class TestAutograd(BackendTests):
    backend = "autograd"
"""

FAULTY = """\
import deepdefense_autograd
import faults
from deepdefense.testing.primitives import PrimitiveTests

deepdefense_autograd.BACKEND = faults.{fault}()

class TestFaulty(PrimitiveTests):
    backend = "autograd"
"""

FEW = """\
from hypothesis import Phase, settings

settings.register_profile(
    "few", max_examples=10, derandomize=True, database=None, phases=[Phase.generate]
)
settings.load_profile("few")
"""

FAULTS = {
    "Long": {
        "test_logits_and_class_gradients_equal_the_reference",
        "test_vjp_equals_the_reference",
        "test_pull_is_differentiable_in_the_weights",
    },
    "Once": {"test_pull_is_differentiable_in_the_weights"},
    "Ties": {"test_rank_breaks_ties_by_the_lower_index"},
    "Thaw": {"test_iterate_freezes_each_example_when_it_is_done"},
    "Overflow": {"test_cross_entropy_is_stable"},
}


class Outcome(NamedTuple):
    """The names of the tests, without parameters, that passed, failed or were skipped."""

    passed: set[str]
    failed: set[str]
    skipped: set[str]
    output: str


def run_python(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a new interpreter with the plugin installed, without this process's pytest settings."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST_")}
    paths = [str(PLUGIN), environment.get("PYTHONPATH", "")]
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
    return subprocess.run(
        [sys.executable, *arguments], cwd=folder, env=environment, capture_output=True, text=True
    )


def run_tests(code: str, folder: Path) -> Outcome:
    """Run pytest on a file that contains `code`, and return the outcome of its tests."""
    (folder / "test_mine.py").write_text(code)
    (folder / "conftest.py").write_text(FEW)
    (folder / "pytest.ini").write_text("[pytest]\n")
    done = run_python("-m", "pytest", "-p", "no:cacheprovider", "--junitxml=out.xml", folder=folder)
    assert (folder / "out.xml").exists(), done.stdout + done.stderr
    outcome = Outcome(set(), set(), set(), done.stdout)
    for case in ElementTree.parse(folder / "out.xml").iter("testcase"):
        name, results = case.get("name", "").partition("[")[0], {part.tag for part in case}
        failed, skipped = results & {"failure", "error"}, "skipped" in results
        (outcome.failed if failed else outcome.skipped if skipped else outcome.passed).add(name)
    return outcome


def list_tests(kit: type) -> set[str]:
    return {name for name in dir(kit) if name.startswith("test_")}


def test_plugin_is_found_by_its_entry_point(tmp_path: Path) -> None:
    code = "import deepdefense as dd; print(dd.available_backends()['autograd'])"
    done = run_python("-c", code, folder=tmp_path)
    assert done.stdout == "True\n", done.stderr or "autograd is not installed"
    assert "autograd" not in dd.available_backends()


def test_plugin_passes_the_kit(tmp_path: Path) -> None:
    outcome = run_tests(USER, tmp_path)
    assert not outcome.failed | outcome.skipped, outcome.output
    assert outcome.passed == list_tests(BackendTests)


@pytest.mark.parametrize("fault", FAULTS)
def test_kit_finds_the_fault(fault: str, tmp_path: Path) -> None:
    outcome = run_tests(FAULTY.format(fault=fault), tmp_path)
    assert outcome.failed == FAULTS[fault], outcome.output
    assert outcome.passed == list_tests(PrimitiveTests) - FAULTS[fault]
