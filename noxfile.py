"""Every check, each in an environment of its own: `nox` runs them all."""

from __future__ import annotations

import sys
from pathlib import Path

import nox

nox.options.default_venv_backend = "virtualenv"
nox.options.error_on_missing_interpreters = True
# Two sessions at a time, on two cores: so one installs while another computes, and what a framework
# compiles it compiles in one process. `nox -s tests-torch -- -n2` is for one of them alone.
nox.options.parallel = 2
nox.options.allow_parallel = True

GROUPS = nox.project.load_toml("pyproject.toml")
FRAMEWORKS = ("torch", "jax", "tensorflow", "keras")
# Compilers take a second or two over each function, so those tests see fewer draws; JAX and
# TensorFlow take their time over each new shape even uncompiled.
COMPILED = "Jit or Graph or Xla"
EAGER = {"HYPOTHESIS_PROFILE": "eager"}
COMPILERS = {"HYPOTHESIS_PROFILE": "compilers"}
SLOWEST = "--durations=12"
# On networks this small threads wait for each other: two processes of two threads each took four
# times as long on two cores.
SMALL = {
    "OMP_NUM_THREADS": "1",
    "TF_NUM_INTRAOP_THREADS": "1",
    "TF_NUM_INTEROP_THREADS": "1",
    # What XLA compiles here runs a few times; a few per cent of JAX's time.
    "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
}
# Reading data needs no framework: tests-numpy covers it.
WITHOUT_DATA = "--ignore-glob=tests/test_data*"


def install(session: nox.Session, package: str, *groups: str) -> None:
    """The package, editable, and dependency groups, all in their tested versions."""
    tools = nox.project.dependency_groups(GROUPS, *groups)
    # Half of the time of an install is compiling modules, most of which are never imported.
    session.install("--no-compile", "-c", "constraints.txt", "-e", package, *tools)


def eager_then_compiled(session: nox.Session, backend: str) -> None:
    """All tests of a backend, those of compiled functions with fewer draws."""
    arguments = ("pytest", f"--backend={backend}", WITHOUT_DATA, SLOWEST, *session.posargs)
    session.run(*arguments, "-k", f"not ({COMPILED})", env=EAGER | SMALL)
    session.run(*arguments, "-k", COMPILED, env=COMPILERS | SMALL)


@nox.session(name="tests-torch")
def tests_torch(session: nox.Session) -> None:
    """The PyTorch backend, the whole job on it, and Keras on PyTorch."""
    install(session, ".[torch,cli]", "test", "test-keras")
    arguments = ("pytest", "--backend=torch", WITHOUT_DATA, SLOWEST, *session.posargs)
    session.run(*arguments, env=SMALL)


@nox.session(name="tests-jax")
def tests_jax(session: nox.Session) -> None:
    """The JAX backend, eager and compiled, in equinox and flax too, and Keras on JAX."""
    install(session, ".[jax,cli]", "test", "test-jax", "test-keras")
    eager_then_compiled(session, "jax")


@nox.session(name="tests-tensorflow")
def tests_tensorflow(session: nox.Session) -> None:
    """The TensorFlow backend, eager, in graphs and under XLA, and Keras on TensorFlow."""
    install(session, ".[tensorflow,cli]", "test")
    eager_then_compiled(session, "tensorflow")


@nox.session(name="tests-parity")
def tests_parity(session: nox.Session) -> None:
    """All frameworks together: the same networks and inputs give the same numbers."""
    install(session, ".[all]", "test")
    backends = [f"--backend={name}" for name in ("torch", "jax", "tensorflow")]
    files = ("tests/test_parity.py", "tests/test_zoo_parity.py", "tests/test_backend.py")
    session.run("pytest", *backends, *files, SLOWEST, *session.posargs, env=SMALL)


@nox.session(name="tests-numpy")
def tests_numpy(session: nox.Session) -> None:
    """The NumPy reference, a third party's backend, docstrings, and data, without a framework."""
    install(session, ".[cli]", "test", "test-plugin")
    session.run("pytest", "--backend=numpy", SLOWEST, *session.posargs, env=SMALL)
    session.run("pytest", "--doctest-modules", "deepdefense", "--ignore=deepdefense/testing")


@nox.session(name="tests-random", default=False)
def tests_random(session: nox.Session) -> None:
    """The property tests on fresh draws, ten times as many: to find bugs, not to land."""
    install(session, ".[torch,cli]", "test")
    session.run("pytest", "tests/test_conformance.py", env={"HYPOTHESIS_PROFILE": "random"})


@nox.session(name="tests-thorough", default=False)
def tests_thorough(session: nox.Session) -> None:
    """The laws of the algorithms in the frameworks too that take minutes over them."""
    install(session, ".[all]", "test")
    backends = [f"--backend={name}" for name in ("jax", "tensorflow")]
    marked = ("-m", "thorough", "--thorough")
    session.run("pytest", *backends, *marked, SLOWEST, env=EAGER | SMALL)


@nox.session(default=False)
def bench(session: nox.Session) -> None:
    """What hardening and DeepFool cost, beside their peers: `nox -s bench -- --data-dir FOLDER`."""
    install(session, ".[all]", "bench")
    # Without what they ask for: torchvision in a release that the tested torch does not go with,
    # and an older requests. What their DeepFool needs of it is in the group.
    peers = (
        "foolbox",
        "adv-lib",
        "adversarial-robustness-toolbox",
        "torchattacks",
        "pyautoattack",
    )
    session.install("-c", "constraints.txt", "--no-deps", *peers)
    session.run("python", "-W", "ignore", "-m", "benchmarks", *session.posargs)


@nox.session
def lint(session: nox.Session) -> None:
    """Format, lint, and who may import whom."""
    install(session, ".[testing]", "lint")
    session.run("ruff", "format", "--check", ".")
    session.run("ruff", "check", ".")
    session.run("lint-imports")
    session.run("python", "docs/results.py", "--check")


@nox.session
def typing(session: nox.Session) -> None:
    """Both type checkers."""
    install(session, ".[all,testing]", "typing")
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
