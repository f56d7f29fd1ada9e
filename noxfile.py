"""The sessions of nox: each runs checks of the project in a virtual environment of its own.

`nox` without arguments runs all sessions except those with `default=False`.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import nox

nox.options.default_venv_backend = "virtualenv"
nox.options.error_on_missing_interpreters = True
# Run two sessions at a time, because a session that installs packages hardly uses the CPU. To run a
# single session faster, split its tests over processes: `nox -s tests-torch -- -n2`.
nox.options.parallel = 2
nox.options.allow_parallel = True

ROOT = Path(__file__).parent
PYPROJECT = nox.project.load_toml("pyproject.toml")
FRAMEWORKS = ("torch", "jax", "tensorflow", "keras")
COMPILED = "Jit or Graph or Xla"  # a pytest expression that selects the tests of compiled code
# Uncompiled JAX and TensorFlow are slow on every new shape, so the profile "eager" draws fewer
# examples than the default profile, which PyTorch's tests use.
EAGER = {"HYPOTHESIS_PROFILE": "eager"}
# Compilation takes most of the time of these tests, so the profile "compilers" draws even fewer.
COMPILERS = {"HYPOTHESIS_PROFILE": "compilers"}
SLOWEST = "--durations=12"  # list the twelve slowest tests
# Environment variables for small computations. The networks of the tests are so small that several
# threads would spend their time waiting for each other.
SMALL = {
    "OMP_NUM_THREADS": "1",
    "TF_NUM_INTRAOP_THREADS": "1",
    "TF_NUM_INTEROP_THREADS": "1",
    # The tests call each compiled function only a few times, so optimising it would cost more time
    # than it saves.
    "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
}
# Reading data files needs no framework, so only the session `tests-numpy` tests it.
WITHOUT_DATA = "--ignore-glob=tests/test_data*"


def install(session: nox.Session, package: str, *groups: str) -> None:
    """Install the package in editable mode, and these dependency groups, in the tested versions."""
    tools = nox.project.dependency_groups(PYPROJECT, *groups)
    # Without --no-compile, pip compiles all modules to bytecode, even those never imported.
    session.install("--no-compile", "-c", "constraints.txt", "-e", package, *tools)


def run_eager_then_compiled(session: nox.Session, backend: str) -> None:
    """Run the eager tests of a backend, then its tests of compiled code with fewer examples."""
    arguments = ("pytest", f"--backend={backend}", WITHOUT_DATA, SLOWEST, *session.posargs)
    session.run(*arguments, "-k", f"not ({COMPILED})", env=EAGER | SMALL)
    session.run(*arguments, "-k", COMPILED, env=COMPILERS | SMALL)


def build_distributions(session: nox.Session, folder: Path, *formats: str) -> list[Path]:
    """Build distributions into the folder, emptied first; return their paths, the wheel last."""
    shutil.rmtree(folder, ignore_errors=True)
    session.install("-c", "constraints.txt", "build", "hatchling")
    session.run("python", "-m", "build", "--no-isolation", *formats, "--outdir", str(folder))
    return sorted(folder.iterdir(), key=lambda file: file.suffix == ".whl")


def check_wheel(session: nox.Session, wheel: Path) -> None:
    """Install the wheel into a new environment, and test it from a folder outside the checkout."""
    folder = Path(session.create_tmp()).absolute()
    session.run("python", "-m", "venv", "--clear", str(folder / "clean"))
    python = str(folder / "clean" / "bin" / "python")
    pip = (python, "-m", "pip", "install", "-q", "-c", "constraints.txt")
    session.run(*pip, str(wheel), external=True)
    session.chdir(folder)
    session.run(python, str(ROOT / "tests" / "installed.py"), *FRAMEWORKS, external=True)


@nox.session(name="tests-torch")
def tests_torch(session: nox.Session) -> None:
    """Test the PyTorch backend, the commands with this backend, and Keras on PyTorch."""
    install(session, ".[torch,cli]", "test", "test-keras")
    arguments = ("pytest", "--backend=torch", WITHOUT_DATA, SLOWEST, *session.posargs)
    session.run(*arguments, env=SMALL)


@nox.session(name="tests-jax")
def tests_jax(session: nox.Session) -> None:
    """Test the JAX backend, eager and compiled, also with equinox, flax, and Keras on JAX."""
    install(session, ".[jax,cli]", "test", "test-jax", "test-keras")
    run_eager_then_compiled(session, "jax")


@nox.session(name="tests-tensorflow")
def tests_tensorflow(session: nox.Session) -> None:
    """Test the TensorFlow backend, eager, in graphs and with XLA, and Keras on TensorFlow."""
    install(session, ".[tensorflow,cli]", "test")
    run_eager_then_compiled(session, "tensorflow")


@nox.session(name="tests-parity")
def tests_parity(session: nox.Session) -> None:
    """Check that all frameworks compute the same numbers from the same networks and inputs."""
    install(session, ".[all]", "test")
    backends = [f"--backend={name}" for name in ("torch", "jax", "tensorflow")]
    files = ("tests/test_parity.py", "tests/test_zoo_parity.py", "tests/test_backend.py")
    session.run("pytest", *backends, *files, SLOWEST, *session.posargs, env=SMALL)


@nox.session(name="tests-numpy")
def tests_numpy(session: nox.Session) -> None:
    """Test all that needs no framework.

    This is the NumPy reference, a sample backend plugin, the reading of data files, and the
    examples in docstrings.
    """
    install(session, ".[cli]", "test", "test-plugin")
    session.run("pytest", "--backend=numpy", SLOWEST, *session.posargs, env=SMALL)
    session.run("pytest", "--doctest-modules", "deepdefense", "--ignore=deepdefense/testing")


@nox.session(name="tests-random", default=False)
def tests_random(session: nox.Session) -> None:
    """Run the property tests on ten times as many, newly drawn random examples."""
    install(session, ".[torch,cli]", "test")
    session.run("pytest", "tests/test_conformance.py", env={"HYPOTHESIS_PROFILE": "random"})


@nox.session(name="tests-thorough", default=False)
def tests_thorough(session: nox.Session) -> None:
    """Run the slow tests of the algorithms' invariances in JAX and TensorFlow.

    An example of an invariance: the result for an example does not depend on its batch.
    """
    install(session, ".[all]", "test")
    backends = [f"--backend={name}" for name in ("jax", "tensorflow")]
    marked = ("-m", "thorough", "--thorough")
    session.run("pytest", *backends, *marked, SLOWEST, env=EAGER | SMALL)


@nox.session(default=False)
def bench(session: nox.Session) -> None:
    """Measure the cost of hardening and DeepFool: `nox -s bench -- --data-dir FOLDER`."""
    install(session, ".[all]", "bench")
    # Install the other libraries without their declared requirements: these conflict with the
    # tested versions of torch and requests. The group `bench` has what their attacks import.
    peers = (
        "foolbox",
        "adv-lib",
        "adversarial-robustness-toolbox",
        "torchattacks",
        "pyautoattack",
    )
    session.install("-c", "constraints.txt", "--no-deps", *peers)
    session.run("python", "-W", "ignore", "-m", "benchmarks", *session.posargs)


@nox.session(default=False)
def battery(session: nox.Session) -> None:
    """Compare hardening without settings with other methods: `nox -s battery -- --data-dir FOLDER`.

    The runs are kept in runs/battery/. A later call continues an interrupted battery.
    """
    install(session, ".[all]", "battery")
    session.run("python", "-W", "ignore", "-m", "benchmarks.battery", *session.posargs)


@nox.session
def lint(session: nox.Session) -> None:
    """Check the code format, the lint rules, the allowed imports and the generated tables."""
    install(session, ".[testing]", "lint")
    session.run("ruff", "format", "--check", ".")
    session.run("ruff", "check", ".")
    session.run("lint-imports")
    session.run("python", "docs/results.py", "--check")


@nox.session
def typing(session: nox.Session) -> None:
    """Run the type checkers mypy and pyright."""
    install(session, ".[all,testing]", "typing")
    session.run("mypy")
    session.run("pyright", "--pythonpath", session.virtualenv.bin + "/python")


@nox.session
def wheel(session: nox.Session) -> None:
    """Build the wheel, install it into a new environment, and test it from another folder."""
    folder = Path(session.create_tmp()).absolute() / "dist"
    check_wheel(session, build_distributions(session, folder, "--wheel")[-1])


@nox.session(default=False)
def release(session: nox.Session) -> None:
    """Build the sdist and the wheel into dist/, check their metadata, and test the wheel."""
    distributions = build_distributions(session, ROOT / "dist")  # the wheel is built from the sdist
    session.install("-c", "constraints.txt", "twine")
    session.run("twine", "check", "--strict", *map(str, distributions))
    check_wheel(session, distributions[-1])


if __name__ == "__main__":
    sys.exit("run me with: nox")
