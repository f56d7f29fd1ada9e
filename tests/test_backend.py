"""Tests of how the library finds and chooses a backend."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import EntryPoint

import numpy as np
import pytest

import deepdefense as dd
from deepdefense.seam import choosing as seam

FRAMEWORKS = {"torch", "jax", "tensorflow", "keras", "flax", "optax"}
EXTRAS = {"matplotlib", "jinja2", "datasets", "sklearn", "hypothesis", "pytest"}


def list_imports(code: str) -> set[str]:
    """Run code in a new interpreter, and return the top-level modules that it imported."""
    code += "\nimport sys; print('|'.join(sys.modules))"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    return {name.partition(".")[0] for name in result.stdout.strip().splitlines()[-1].split("|")}


def test_import_imports_no_framework() -> None:
    assert dd.available_backends()["numpy"] is True
    modules = list_imports("import deepdefense as dd; dd.available_backends()")
    assert not modules & (FRAMEWORKS | EXTRAS)
    assert not {name for name in modules if name.startswith("deepdefense_")}


# For each backend, what a user's program imports before Deep Defense. TensorFlow imports Keras, and
# JAX if it is installed.
IMPORTS = {
    "numpy": "numpy",
    "torch": "torch",
    "jax": "jax, optax",
    "tensorflow": "tensorflow, keras",
}
ATTACK = """
dd.use_backend({name!r})
backend = dd.get_backend({name!r})
x, y = (backend.asarray(np.array(v), None) for v in ([[1.0, 2.0]], [0]))
dd.deepfool(lambda x: x * 2.0, x)
dd.DeepDefense()(lambda x: x * 2.0, x, y)
"""
TRAIN = """
from deepdefense.training.epoch import take_step
from deepdefense.training.recipe import Recipe
from deepdefense.zoo import initial_weights, mlp
network = mlp((2,), 3)
model = backend.build(network, initial_weights(network, 0, 1.0))
x = backend.asarray(np.array([[1.0, 2.0]]), model)
trainer = Recipe().make_trainer(backend, model)
take_step(backend, trainer, dd.DeepDefense(), x, np.array([0]), lr=0.1)
"""


ALL = ("torch", "jax", "tensorflow")
# Without the other frameworks the test would prove nothing, because they could not be imported.
BESIDE_OTHERS = [
    pytest.param("numpy", marks=pytest.mark.only("numpy")),
    *(pytest.param(name, marks=[pytest.mark.only(each) for each in ALL]) for name in ALL),
]


@pytest.mark.parametrize("name", BESIDE_OTHERS)
def test_using_a_backend_imports_no_other_framework(name: str) -> None:
    """An attack, a penalty, building a network, and a training step import no other framework."""
    expected = list_imports(f"import {IMPORTS[name]}")
    training = "" if name == "numpy" else TRAIN
    code = f"import numpy as np, deepdefense as dd\n{ATTACK.format(name=name)}{training}"
    modules = list_imports(code)
    assert f"deepdefense_{name}" in modules
    assert not (modules & FRAMEWORKS) - expected
    assert not {f"deepdefense_{other}" for other in IMPORTS if other != name} & modules


def test_unknown_backend_raises() -> None:
    names = ", ".join(sorted(dd.available_backends()))
    with pytest.raises(dd.InputError, match=f"no backend is called 'caffe'; known: {names}"):
        dd.use_backend("caffe")
    assert dd.current_backend() is None


def test_missing_framework_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = EntryPoint("nosuchframework", "nosuchframework.backend:BACKEND", seam.GROUP)
    monkeypatch.setattr(seam, "_entries", lambda: {"nosuchframework": entry})
    with pytest.raises(ImportError, match=r'pip install "deepdefense\[nosuchframework\]"'):
        dd.get_backend("nosuchframework")


def test_an_installation_without_entry_points_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seam, "_entries", dict)
    monkeypatch.setattr(seam, "_framework_of_root", {}.get)  # because the original function caches
    message = r"none \(is deepdefense installed\?\)"
    with pytest.raises(dd.InputError, match=f"known: {message}"):
        dd.get_backend("torch-of-a-copied-folder")
    with pytest.raises(dd.InputError, match=f"expected an array of {message}, got builtins"):
        seam.backend_of(object())


def test_incomplete_backend_raises_with_the_missing_members(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    entry = EntryPoint("json", "json:decoder", seam.GROUP)
    monkeypatch.setattr(seam, "_entries", lambda: {"json": entry})
    with pytest.raises(TypeError, match=r"the entry point 'json' is no backend: it lacks asarray"):
        dd.get_backend("json")


def test_values_of_no_framework_raise() -> None:
    with pytest.raises(dd.InputError, match=r"expected an array of .*, got builtins\.list"):
        dd.rho([[1.0]], [[2.0]])


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.only(n)) for n in ALL])
def test_arrays_of_two_frameworks_raise(name: str) -> None:
    backend, x = dd.get_backend(name), np.ones((2, 3))
    native = backend.asarray(x, lambda x: x)
    both = f"{' and '.join(sorted(['numpy', name]))}"
    with pytest.raises(dd.InputError, match=f"two frameworks in one call: {both}"):
        dd.rho(x, native)
    with pytest.raises(dd.InputError, match=f"two frameworks in one call: {both}"):
        dd.deepfool(lambda x: x, native, np.array([0, 1]))
    with pytest.raises(
        dd.InputError, match=f"examples are of numpy, but the model returned logits of {name}"
    ):
        dd.deepfool(lambda x: native, x)
    with (
        dd.use_backend("numpy"),
        pytest.raises(dd.InputError, match=rf'use_backend\("numpy"\) is in force, .* of {name}'),
    ):
        dd.rho(native, native)


@pytest.mark.only("torch")
@pytest.mark.only("jax")
def test_arrays_of_torch_and_jax_raise() -> None:
    import jax.numpy as jnp
    import torch

    with pytest.raises(dd.InputError, match="two frameworks in one call: jax and torch"):
        dd.rho(torch.ones(2, 3), jnp.ones((2, 3)))
