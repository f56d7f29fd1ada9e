"""Tests of hardening in every backend, from Python and from the command line."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

import deepdefense as dd
from blobs import TEST, TRAIN, Interrupt, summarize
from deepdefense.app import cli
from deepdefense.app.run_folder import load_weights
from deepdefense.seam.training_contract import TrainingBackend, training_backend
from deepdefense.zoo import initial_weights, mlp
from native_blobs import BACKENDS, RECIPE, harden, have_same_weights, train_network


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> TrainingBackend:
    return training_backend(request.param)


def test_hardens_a_copy_natively(backend: TrainingBackend, tmp_path: Path) -> None:
    network, model = train_network(backend)
    before = backend.weights(model)
    hardened, report = harden(model, out=tmp_path / "run")
    for name, value in backend.weights(model).items():
        np.testing.assert_array_equal(value, before[name])
    assert type(hardened) is type(model)
    assert report.backend == backend.name
    assert report.before == summarize(model, *TEST)
    assert report.after == summarize(hardened, *TEST)
    assert report.after.rho_2 > 1.3 * report.before.rho_2
    assert report.stopped is None
    weights = load_weights(tmp_path / "run" / "hardened.safetensors")
    assert set(weights) == {"fc1.weight", "fc1.bias", "fc2.weight", "fc2.bias"}
    rebuilt = backend.build(network, weights)
    assert have_same_weights(backend, rebuilt, hardened)
    content = json.loads((tmp_path / "run" / "report.json").read_text())
    assert content == report.as_dict()
    assert backend.name in content["environment"]


def test_hardens_in_stages_without_settings(backend: TrainingBackend) -> None:
    _, model = train_network(backend)
    recipe = dd.Recipe.staged(len(TRAIN[1]), optimizer_steps=60, batch_size=30)
    hardened, report = dd.harden(model, TRAIN, TEST, recipe=recipe)
    assert report.rehearsal is not None
    assert report.rehearsal.accepted
    assert report.rehearsal.from_shuffled_weights
    assert report.verdict.distance_change == "more"
    assert report.verdict.accuracy_change != "less"
    assert not have_same_weights(backend, hardened, model)


def test_interrupted_run_resumes_to_the_same_result(
    backend: TrainingBackend, tmp_path: Path
) -> None:
    _, model = train_network(backend)
    expected, report = harden(model)
    with pytest.raises(KeyboardInterrupt):
        harden(model, out=tmp_path / "run", watcher=Interrupt("harden", 8))
    actual, resumed = harden(model, out=tmp_path / "run", resume=True)
    assert have_same_weights(backend, actual, expected)
    assert resumed.after == report.after


def test_divergence_changes_nothing(backend: TrainingBackend) -> None:
    _, model = train_network(backend)
    hardened, report = harden(model, recipe=replace(RECIPE, lr=1e30))
    assert report.stopped is not None
    assert "nothing was changed" in report.stopped
    assert have_same_weights(backend, hardened, model)


def test_command_line_runs_on_every_backend(
    backend: TrainingBackend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (x, y), (x_test, y_test) = TRAIN, TEST
    np.savez("blobs.npz", x_train=x, y_train=y, x_test=x_test, y_test=y_test)
    save_file(initial_weights(mlp((1, 4, 4), 3), 0, 1.0), "start.safetensors")
    options = {
        "data": "blobs.npz",
        "backend": backend.name,
        "weights": "start.safetensors",
        "epochs": "2",
        "lr": "0.01",
        "out": "run",
    }
    words = [word for key, value in options.items() for word in (f"--{key}", value)]
    with pytest.raises(SystemExit) as exit_info:
        cli.main(["harden", *words])
    assert exit_info.value.code == 0
    content = json.loads(Path("run/report.json").read_text())
    assert content["backend"] == backend.name
    assert len(content["history"]) == 2
    assert Path("run/report.html").exists()


@pytest.mark.only("jax")
def test_jax_hardens_any_callable_pytree() -> None:
    """The model is `Partial(apply, parameters)`, as with flax, haiku and stax."""
    import jax
    import jax.numpy as jnp

    rng = np.random.default_rng(0)
    layers = [
        {"w": jnp.asarray(rng.normal(size=s).astype(np.float32) / 4), "b": jnp.zeros((1, s[1]))}
        for s in ((16, 12), (12, 3))
    ]
    layers = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), layers)

    def apply(parameters: Any, x: Any) -> Any:
        rows = jnp.reshape(x, (x.shape[0], 16))
        first, second = parameters
        return jax.nn.relu(rows @ first["w"] + first["b"]) @ second["w"] + second["b"]

    model = jax.tree_util.Partial(apply, layers)
    with dd.use_backend("jax"):
        hardened, report = harden(model, recipe=replace(RECIPE, epochs=1))
    assert report.network.parameters == 16 * 12 + 12 + 12 * 3 + 3
    assert isinstance(hardened, jax.tree_util.Partial)
    assert hardened.args[0][0]["w"].shape == (16, 12)
    assert not np.array_equal(hardened.args[0][0]["w"], layers[0]["w"])


@pytest.mark.only("jax")
def test_jax_hardens_an_equinox_module() -> None:
    import equinox as eqx
    import jax

    class Network(eqx.Module):
        """A module that maps a batch to logits."""

        layers: eqx.nn.MLP

        def __call__(self, x: Any) -> Any:
            return jax.vmap(self.layers)(x.reshape(len(x), 16))

    mlp = eqx.nn.MLP(16, 3, 8, 1, dtype=np.float32, key=jax.random.key(0))
    # The first module accepts batches. The second accepts one example, and is mapped over batches.
    single = eqx.nn.Sequential([eqx.nn.Lambda(jax.numpy.ravel), mlp])
    leaves = []
    for model in (Network(mlp), eqx.filter_vmap(single)):
        with dd.use_backend("jax"):
            hardened, report = harden(model, recipe=replace(RECIPE, epochs=1))
        assert report.network.parameters == 16 * 8 + 8 + 8 * 3 + 3
        assert type(hardened) is type(model)
        leaves.append(jax.tree_util.tree_leaves(eqx.filter(hardened, eqx.is_inexact_array)))
    assert not np.array_equal(leaves[0][0], mlp.layers[0].weight)
    for one, other in zip(*leaves, strict=True):  # equal up to float32 rounding
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.only("tensorflow")
def test_tensorflow_hardens_the_users_own_keras_model(tmp_path: Path) -> None:
    """Hardening keeps the names of layers, and resumes exactly with dropout and batch norm."""
    import keras

    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((1, 4, 4)),
            keras.layers.Flatten(),
            keras.layers.Dense(12, name="first"),
            keras.layers.BatchNormalization(name="norm"),
            keras.layers.ReLU(),
            keras.layers.Dropout(0.2),
            keras.layers.Dense(3, name="last"),
        ]
    )
    expected, report = harden(model)
    names = set(training_backend("tensorflow").weights(model))
    assert {"first.weight", "norm.running_mean", "norm.weight", "last.bias"} <= names
    with pytest.raises(KeyboardInterrupt):
        harden(model, out=tmp_path / "run", watcher=Interrupt("harden", 8))
    actual, resumed = harden(model, out=tmp_path / "run", resume=True)
    assert have_same_weights(training_backend("tensorflow"), actual, expected)
    assert resumed.after == report.after
