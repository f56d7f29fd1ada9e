"""Every check, each in an environment of its own: `nox` runs them all."""

from __future__ import annotations

import sys
from pathlib import Path

import nox

nox.options.default_venv_backend = "virtualenv"
nox.options.error_on_missing_interpreters = True

GROUPS = nox.project.load_toml("pyproject.toml")
PROPERTIES = [
    f"tests/test_{name}.py" for name in ("backend", "deepfool", "defense", "metrics", "norms")
]
FRAMEWORKS = ("torch", "jax", "tensorflow", "keras")


def install(session: nox.Session, package: str, *groups: str) -> None:
    """The package, editable, and dependency groups, all in their tested versions."""
    tools = nox.project.dependency_groups(GROUPS, *groups)
    session.install("-c", "constraints.txt", "-e", package, *tools)


@nox.session(name="tests-torch")
def tests_torch(session: nox.Session) -> None:
    """The PyTorch backend, and the whole job on it."""
    install(session, ".[torch,cli]", "test")
    # Reading data needs no framework: tests-numpy covers it.
    without = "--ignore=tests/test_data.py"
    session.run("pytest", "--backend=torch", without, *session.posargs)


@nox.session(name="tests-numpy")
def tests_numpy(session: nox.Session) -> None:
    """The NumPy reference, the examples in docstrings, and the data, without any framework."""
    install(session, ".[cli]", "test")
    session.run("pytest", "--backend=numpy", *session.posargs)
    session.run("pytest", "--doctest-modules", "deepdefense")


@nox.session(name="tests-random", default=False)
def tests_random(session: nox.Session) -> None:
    """The property tests on fresh draws, ten times as many: to find bugs, not to land."""
    install(session, ".[torch,cli]", "test")
    session.run("pytest", *PROPERTIES, env={"HYPOTHESIS_PROFILE": "random"})


@nox.session
def lint(session: nox.Session) -> None:
    """Format, lint, and who may import whom."""
    install(session, ".", "lint")
    session.run("ruff", "format", "--check", ".")
    session.run("ruff", "check", ".")
    session.run("lint-imports")
    session.run("python", "docs/results.py", "--check")


@nox.session
def typing(session: nox.Session) -> None:
    """Both type checkers."""
    install(session, ".[torch,cli]", "typing")
    session.run("mypy")
    session.run("pyright", "--pythonpath", session.virtualenv.bin + "/python")


@nox.session
def wheel(session: nox.Session) -> None:
    """Build the wheel, install it where nothing else is, and use it from elsewhere."""
    session.install("-c", "constraints.txt", "build", "hatchling")
    folder = session.create_tmp()
    session.run("python", "-m", "build", "--no-isolation", "--wheel", "--outdir", folder)
    newest = max(Path(folder).glob("*.whl"), key=lambda file: file.stat().st_mtime)
    session.run("python", "-m", "pip", "uninstall", "-q", "-y", "build", "hatchling", silent=True)
    session.install("-c", "constraints.txt", "--force-reinstall", str(newest))
    session.chdir(folder)
    session.run("python", str(Path(__file__).parent / "tests" / "installed.py"), *FRAMEWORKS)


if __name__ == "__main__":
    sys.exit("run me with: nox")
