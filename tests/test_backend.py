"""How a backend is found and chosen."""

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


def imported(code: str) -> set[str]:
    """The root modules in a fresh interpreter that has run the code."""
    code += "\nimport sys; print('|'.join(sys.modules))"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    return {name.partition(".")[0] for name in result.stdout.strip().splitlines()[-1].split("|")}


def test_import_imports_no_framework() -> None:
    assert dd.available_backends()["numpy"] is True
    found = imported("import deepdefense as dd; dd.available_backends()")
    assert not found & (FRAMEWORKS | EXTRAS)
    assert not {name for name in found if name.startswith("deepdefense_")}


# What a user imports before Deep Defense. TensorFlow brings Keras, and JAX where that is installed.
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
from deepdefense.training import Recipe, take_step
from deepdefense.zoo import initial_weights, mlp
network = mlp((2,), 3)
model = backend.build(network, initial_weights(network, 0, 1.0))
x = backend.asarray(np.array([[1.0, 2.0]]), model)
trainer = Recipe().make_trainer(backend, model)
take_step(backend, trainer, dd.DeepDefense(), x, np.array([0]), lr=0.1)
"""


ALL = ("torch", "jax", "tensorflow")
# Where no other framework is installed none could be imported.
BESIDE_OTHERS = [
    pytest.param("numpy", marks=pytest.mark.only("numpy")),
    *(pytest.param(name, marks=[pytest.mark.only(each) for each in ALL]) for name in ALL),
]


@pytest.mark.parametrize("name", BESIDE_OTHERS)
def test_using_a_backend_imports_no_other_framework(name: str) -> None:
    """An attack, a penalty, a network of the zoo and a step of training: no other framework."""
    own = imported(f"import {IMPORTS[name]}")
    training = "" if name == "numpy" else TRAIN
    code = f"import numpy as np, deepdefense as dd\n{ATTACK.format(name=name)}{training}"
    found = imported(code)
    assert f"deepdefense_{name}" in found
    assert not (found & FRAMEWORKS) - own
    assert not {f"deepdefense_{other}" for other in IMPORTS if other != name} & found


def test_unknown_backend_is_told() -> None:
    known = ", ".join(sorted(dd.available_backends()))
    with pytest.raises(dd.InputError, match=f"no backend is called 'caffe'; known: {known}"):
        dd.use_backend("caffe")
    assert dd.current_backend() is None


def test_missing_framework_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = EntryPoint("nosuchframework", "nosuchframework.backend:BACKEND", seam.GROUP)
    monkeypatch.setattr(seam, "_entries", lambda: {"nosuchframework": entry})
    with pytest.raises(ImportError, match=r'pip install "deepdefense\[nosuchframework\]"'):
        dd.get_backend("nosuchframework")


def test_code_without_its_entry_points_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seam, "_entries", dict)
    monkeypatch.setattr(seam, "_framework_of_root", {}.get)  # which would remember it
    told = r"none \(is deepdefense installed\?\)"
    with pytest.raises(dd.InputError, match=f"known: {told}"):
        dd.get_backend("torch-of-a-copied-folder")
    with pytest.raises(dd.InputError, match=f"expected an array of {told}, got builtins"):
        seam.backend_of(object())


def test_incomplete_backend_says_what_it_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = EntryPoint("json", "json:decoder", seam.GROUP)
    monkeypatch.setattr(seam, "_entries", lambda: {"json": entry})
    with pytest.raises(TypeError, match=r"the entry point 'json' is no backend: it lacks asarray"):
        dd.get_backend("json")


def test_values_of_no_framework_are_told() -> None:
    with pytest.raises(dd.InputError, match=r"expected an array of .*, got builtins\.list"):
        dd.rho([[1.0]], [[2.0]])


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.only(n)) for n in ALL])
def test_arrays_of_two_frameworks_are_told(name: str) -> None:
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
def test_arrays_of_torch_and_jax_are_told() -> None:
    import jax.numpy as jnp
    import torch

    with pytest.raises(dd.InputError, match="two frameworks in one call: jax and torch"):
        dd.rho(torch.ones(2, 3), jnp.ones((2, 3)))
