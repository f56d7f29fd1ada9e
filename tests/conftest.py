"""Select the tested backends, make JAX strict, and define the profiles of Hypothesis."""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, settings

from deepdefense.seam.choosing import available_backends

# JAX must compute in float64, as the oracle does, and raise where it would promote types or ranks.
os.environ["JAX_ENABLE_X64"] = "1"
os.environ["JAX_NUMPY_DTYPE_PROMOTION"] = "strict"
os.environ["JAX_NUMPY_RANK_PROMOTION"] = "raise"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

# The default profile is derandomised, so that the tests are repeatable. There is no deadline,
# because timings on shared machines vary. The profiles for slow frameworks and for compilers draw
# fewer examples, because each new shape and function costs time there.
common = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile("ci", max_examples=60, derandomize=True, database=None, **common)
settings.register_profile("eager", max_examples=6, derandomize=True, database=None, **common)
settings.register_profile("compilers", max_examples=3, derandomize=True, database=None, **common)
settings.register_profile("random", max_examples=1000, **common)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--backend",
        action="append",
        choices=sorted(available_backends()),
        help="test this backend (repeatable), and fail if its framework is missing; "
        "default: all that are installed",
    )
    parser.addoption(
        "--thorough", action="store_true", help="run the tests that are marked `thorough` too"
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect tests of backends that are not selected, and thorough tests without --thorough."""
    chosen = config.getoption("--backend") or [
        name for name, installed in available_backends().items() if installed
    ]

    thorough = config.getoption("--thorough")

    def is_selected(item: pytest.Item) -> bool:
        if item.get_closest_marker("thorough") and not thorough:
            return False
        return all(mark.args[0] in chosen for mark in item.iter_markers("only"))

    selected = [item for item in items if is_selected(item)]
    config.hook.pytest_deselected(items=[item for item in items if item not in selected])
    items[:] = selected
