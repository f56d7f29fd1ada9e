"""How a backend is found and chosen."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import EntryPoint

import numpy as np
import pytest

import deepdefense as dd
from deepdefense import backend as seam

FRAMEWORKS = {"torch", "jax", "tensorflow", "keras", "flax", "optax"}
EXTRAS = {"matplotlib", "jinja2", "datasets", "sklearn", "hypothesis", "pytest"}


def imported(code: str) -> set[str]:
    """The root modules in a fresh interpreter that has run the code."""
    code += "; import sys; print('|'.join(sys.modules), file=sys.stdout)"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    return {name.partition(".")[0] for name in result.stdout.strip().splitlines()[-1].split("|")}


def test_import_imports_no_framework() -> None:
    assert dd.available_backends()["numpy"] is True
    found = imported("import deepdefense as dd; dd.available_backends()")
    assert not found & (FRAMEWORKS | EXTRAS)
    assert not {name for name in found if name.startswith("deepdefense_")}


USES = {
    "numpy": "x = np.ones((1, 2))",
    "torch": "import torch; x = torch.ones(1, 2)",
    "jax": "import jax.numpy as jnp; x = jnp.ones((1, 2))",
    "tensorflow": "import tensorflow as tf; x = tf.ones((1, 2))",
}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.only(name)) for name in USES]
)
def test_using_a_backend_imports_no_other_framework(name: str) -> None:
    """None but those that the framework imports by itself (TensorFlow: Keras, JAX if it is there).

    Choosing it, an attack, a penalty and a network of the zoo: all of the backend is used.
    """
    own = imported(f"import numpy as np; {USES[name]}")
    if name == "tensorflow":
        own |= imported("import keras")  # the zoo's models are Keras's
    chosen = (
        ""
        if name == "numpy"
        else (
            "from deepdefense.training import training_backend as t; "
            "from deepdefense.zoo import NETWORKS, initial_weights as i; n = NETWORKS['mlp']((2,), 3);"
            f"m = t('{name}').build(n, i(n, 0, 1.0)); m(x);"
        )
    )
    found = imported(
        f"import numpy as np; {USES[name]}; import deepdefense as dd; dd.use_backend('{name}'); "
        "f = lambda x: x * 2.0; dd.deepfool(f, x); "
        f"dd.DeepDefense()(f, x, np.array([0])) if '{name}' == 'numpy' else None; {chosen} 0"
    )
    assert f"deepdefense_{name}" in found
    others = FRAMEWORKS - own - ({"optax"} if name == "jax" else set())
    assert not found & others
    assert not {f"deepdefense_{other}" for other in USES if other != name} & found


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


def test_incomplete_backend_says_what_it_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = EntryPoint("json", "json:decoder", seam.GROUP)
    monkeypatch.setattr(seam, "_entries", lambda: {"json": entry})
    with pytest.raises(TypeError, match=r"the entry point 'json' is no backend: it lacks asarray"):
        dd.get_backend("json")


def test_values_of_no_framework_are_told() -> None:
    with pytest.raises(dd.InputError, match=r"expected an array of .*, got builtins\.list"):
        dd.rho([[1.0]], [[2.0]])


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.only(n)) for n in USES if n != "numpy"]
)
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
