"""Which backends are tested, how strictly, and how Hypothesis draws."""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, settings

from deepdefense.seam.choosing import available_backends

# Double precision for the oracle's sake, and no silent promotion of types or ranks.
os.environ["JAX_ENABLE_X64"] = "1"
os.environ["JAX_NUMPY_DTYPE_PROMOTION"] = "strict"
os.environ["JAX_NUMPY_RANK_PROMOTION"] = "raise"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

# A landing never depends on luck: derandomised unless asked otherwise. No deadline, as these
# machines are noisy and a timing proves nothing. JAX and TensorFlow take their time over each new
# shape, and compilers a second or two over each new function, so they are shown fewer.
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
    """Tests of one framework's own matters run where that backend is tested."""
    chosen = config.getoption("--backend") or [
        name for name, installed in available_backends().items() if installed
    ]

    thorough = config.getoption("--thorough")

    def about(item: pytest.Item) -> bool:
        if item.get_closest_marker("thorough") and not thorough:
            return False
        return all(mark.args[0] in chosen for mark in item.iter_markers("only"))

    kept = [item for item in items if about(item)]
    config.hook.pytest_deselected(items=[item for item in items if item not in kept])
    items[:] = kept
