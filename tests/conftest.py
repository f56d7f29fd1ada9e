"""Which backends are tested, and how Hypothesis draws."""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, settings

from deepdefense.backend import available_backends
from subjects import SUBJECTS

# A landing never depends on luck: derandomised unless asked otherwise. No deadline, as these
# machines are noisy and a timing proves nothing.
common = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile("ci", max_examples=100, derandomize=True, database=None, **common)
settings.register_profile("random", max_examples=1000, **common)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--backend",
        action="append",
        choices=sorted(SUBJECTS),
        help="test this backend (repeatable), and fail if its framework is missing; "
        "default: all that are installed",
    )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "subject" in metafunc.fixturenames:
        chosen = metafunc.config.getoption("--backend") or [
            name for name, installed in available_backends().items() if installed
        ]
        if metafunc.definition.get_closest_marker("autodiff"):
            chosen = [name for name in chosen if SUBJECTS[name].autodiff]
        metafunc.parametrize("subject", [SUBJECTS[name] for name in chosen], ids=chosen)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Tests of one framework's own matters run where that backend is tested."""
    chosen = config.getoption("--backend")
    if not chosen:
        return
    differentiates = any(SUBJECTS[name].autodiff for name in chosen)

    def about(item: pytest.Item) -> bool:
        only, autodiff = (item.get_closest_marker(name) for name in ("only", "autodiff"))
        return (only is None or only.args[0] in chosen) and (autodiff is None or differentiates)

    kept = [item for item in items if about(item)]
    config.hook.pytest_deselected(items=[item for item in items if item not in kept])
    items[:] = kept
