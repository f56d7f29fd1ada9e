"""The native side of every backend: networks of the zoo, weights, SGD, the whole job."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

import blobs
import deepdefense as dd
from blobs import DEFENSE, TEST, TRAIN, Interrupt, summarize
from deepdefense.app import cli
from deepdefense.app.runs import load_weights
from deepdefense.app.study.one_layer import OneLayer
from deepdefense.defenses.objective import Objective
from deepdefense.seam.training import TrainingBackend, training_backend
from deepdefense.training.epoch import draw_batches, take_step
from deepdefense.zoo import NETWORKS, Network, initial_weights, mlp

BACKENDS = [pytest.param(n, marks=pytest.mark.only(n)) for n in ("torch", "jax", "tensorflow")]


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> TrainingBackend:
    return training_backend(request.param)


RECIPE = replace(blobs.RECIPE, batch_size=30)  # which divides 150: JAX compiles one shape


def shape(name: str) -> tuple[int, int, int]:
    return (3, 32, 32) if name == "convnet" else (2, 20, 21)


@pytest.mark.parametrize("name", ["convnet", "lenet", "mlp"])  # test_zoo.py has the others
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_zoo_builds_what_it_describes(backend: TrainingBackend, name: str, dtype: Any) -> None:
    network = NETWORKS[name](shape(name), 7)
    drawn = initial_weights(network, 0, 79.0)
    weights = {key: value.astype(dtype) for key, value in drawn.items()}
    model = backend.build(network, weights)
    found = backend.weights(model)
    assert set(found) == set(weights)
    for key, value in found.items():
        assert value.dtype == dtype
        np.testing.assert_array_equal(value, weights[key])
    x = backend.asarray(np.ones((2, *shape(name)), np.float32), model)
    logits = backend.to_numpy(model(x))
    assert logits.shape == (2, 7)
    assert logits.dtype == dtype
    zero = backend.load(backend.copy(model), {key: 0 * value for key, value in weights.items()})
    np.testing.assert_array_equal(backend.to_numpy(zero(x)), 0)
    np.testing.assert_array_equal(backend.to_numpy(model(x)), logits)  # the copy is another


def test_models_are_built_on_the_device_asked_for(backend: TrainingBackend) -> None:
    network = mlp((4,), 3, hidden=(5,))
    for device in (None, "cpu", "cpu:0"):
        with backend.on_device(device):
            model = backend.build(network, initial_weights(network, 0, 1.0))
            assert backend.asarray(np.ones((2, 4)), model).shape == (2, 4)
    for device in ("gpu:99", "nowhere", "cpu:x"):
        with pytest.raises(dd.InputError, match=f"device.* {device!r}"), backend.on_device(device):
            pass


def test_calibrates_on_arrays_of_any_kind(backend: TrainingBackend) -> None:
    network = mlp((1, 4, 4), 3, hidden=(8,))
    model = backend.build(network, initial_weights(network, 0, 1.0))
    x, y = TRAIN
    found = dd.calibrate(model, x, y)
    assert dd.calibrate(model, backend.asarray(x, model), y.tolist()) == found
    assert dd.calibrate(model, backend.asarray(x, model), backend.asarray(y, model)) == found


def test_build_takes_weights_in_any_form(backend: TrainingBackend, tmp_path: Path) -> None:
    network = dd.zoo.mlp((4,), 3, hidden=(5,))
    with pytest.raises(dd.InputError, match="choose a framework first"):
        dd.build(network)
    with dd.use_backend(backend.name):
        model = dd.build(network, seed=3)
        weights = backend.weights(model)
        save_file(weights, tmp_path / "w.safetensors")
        for given in (weights, tmp_path / "w.safetensors", str(tmp_path / "w.safetensors")):
            assert same(backend, dd.build(network, given), model)
        renamed = {k.replace("2.w", "3.w"): v for k, v in weights.items()}
        with pytest.raises(dd.InputError, match=r"lacks fc2\.weight and has fc3\.weight"):
            dd.build(network, renamed)
        with pytest.raises(dd.InputError, match=r"fc1\.bias must have shape \[5\], it has \[6\]"):
            dd.build(network, weights | {"fc1.bias": np.zeros(6)})
        with pytest.raises(dd.InputError, match=r"no file|not found|does not exist"):
            dd.build(network, tmp_path / "none.safetensors")


def test_sgd_is_the_textbooks(backend: TrainingBackend) -> None:
    """V <- m v + g + decay w, w <- w - lr v, on softmax regression, whose gradient is known."""
    network = mlp((4,), 3, hidden=())
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(10, 4)), rng.integers(0, 3, 10)
    start = {"fc1.weight": rng.normal(size=(3, 4)), "fc1.bias": rng.normal(size=3)}
    recipe = dd.Recipe(lr=0.3, momentum=0.8, weight_decay=0.1)
    trainer = recipe.make_trainer(backend, backend.build(network, start))
    expected = {key: value.copy() for key, value in start.items()}
    speed = {key: np.zeros_like(value) for key, value in start.items()}
    for _ in range(3):
        logits = x @ expected["fc1.weight"].T + expected["fc1.bias"]
        odds = np.exp(logits - logits.max(1, keepdims=True))
        error = (odds / odds.sum(1, keepdims=True) - np.eye(3)[y]) / len(x)
        for key, gradient in (("fc1.weight", error.T @ x), ("fc1.bias", error.sum(0))):
            speed[key] = 0.8 * speed[key] + gradient + 0.1 * expected[key]
            expected[key] = expected[key] - 0.3 * speed[key]
        taken = take_step(backend, trainer, Objective(), x, y, lr=0.3)
        assert taken is not None
        entropy = np.log(odds.sum(1)) + logits.max(1) - logits[np.arange(10), y]
        assert taken.total == pytest.approx(entropy.mean())
    for key, value in backend.weights(trainer.model).items():
        np.testing.assert_allclose(value, expected[key], rtol=1e-6)


@pytest.mark.only("torch")
def test_no_example_is_a_batch_by_itself() -> None:
    for count, size, expected in (
        (10, 3, [3, 3, 4]),
        (9, 3, [3, 3, 3]),
        (11, 3, [3, 3, 3, 2]),
        (1, 3, [1]),
        (3, 1, [1, 1, 1]),
        (0, 3, []),
    ):
        parts = list(draw_batches(count, size, 0))
        assert [len(part) for part in parts] == expected
        assert sorted(np.concatenate([[], *parts]).tolist()) == list(range(count))


def test_long_gradients_are_clipped_before_weight_decay(backend: TrainingBackend) -> None:
    network = mlp((4,), 3, hidden=())
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(10, 4)), rng.integers(0, 3, 10)
    start = {"fc1.weight": rng.normal(size=(3, 4)), "fc1.bias": rng.normal(size=3)}
    recipe = dd.Recipe(momentum=0.0, weight_decay=0.1)

    def moved(clip: float) -> tuple[np.ndarray, float]:
        trainer = recipe.make_trainer(backend, backend.build(network, start))
        taken = take_step(backend, trainer, Objective(), x, y, lr=1.0, clip=clip)
        assert taken is not None
        after = backend.weights(trainer.model)
        moves = [(1 - 0.1) * start[key] - after[key] for key in start]
        return np.concatenate([move.ravel() for move in moves]), taken.gradient

    free, length = moved(np.inf)
    np.testing.assert_allclose(np.linalg.norm(free), length, rtol=1e-6)
    short, same_length = moved(length / 3)
    assert same_length == pytest.approx(length)
    np.testing.assert_allclose(short, free / 3, rtol=1e-6)
    np.testing.assert_allclose(moved(3 * length)[0], free, rtol=1e-6)


def trained(backend: TrainingBackend) -> tuple[Network, Any]:
    """A network of the zoo that knows the blobs a little."""
    network = mlp((1, 4, 4), 3, hidden=(12,))
    rng = np.random.default_rng(0)
    drawn = {k: rng.normal(0, 0.6, v.shape) for k, v in initial_weights(network, 0, 1.0).items()}
    weights = {name: value.astype(np.float32) for name, value in drawn.items()}
    trainer = RECIPE.make_trainer(backend, backend.build(network, weights))
    for start in range(0, 150, 30):
        x, y = (part[start : start + 30] for part in TRAIN)
        take_step(backend, trainer, Objective(), x, y, lr=0.05)
    return network, trainer.model


def same(backend: TrainingBackend, a: Any, b: Any) -> bool:
    one, other = backend.weights(a), backend.weights(b)
    return all(np.array_equal(value, other[name]) for name, value in one.items())


def harden(model: Any, **options: Any) -> tuple[Any, dd.HardeningReport]:
    return dd.harden(model, TRAIN, TEST, **{"defense": DEFENSE, "recipe": RECIPE, **options})


def test_hardens_a_copy_natively(backend: TrainingBackend, tmp_path: Path) -> None:
    network, model = trained(backend)
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
    again = backend.build(network, weights)
    assert same(backend, again, hardened)
    content = json.loads((tmp_path / "run" / "report.json").read_text())
    assert content == report.as_dict()
    assert backend.name in content["environment"]


def test_interrupted_run_resumes_to_the_same_result(
    backend: TrainingBackend, tmp_path: Path
) -> None:
    _, model = trained(backend)
    expected, report = harden(model)
    with pytest.raises(KeyboardInterrupt):
        harden(model, out=tmp_path / "run", watcher=Interrupt("harden", 8))
    found, resumed = harden(model, out=tmp_path / "run", resume=True)
    assert same(backend, found, expected)
    assert resumed.after == report.after


def test_divergence_changes_nothing(backend: TrainingBackend) -> None:
    _, model = trained(backend)
    hardened, report = harden(model, recipe=replace(RECIPE, lr=1e30))
    assert report.stopped is not None
    assert "nothing was changed" in report.stopped
    assert same(backend, hardened, model)


def test_trainer_goes_back_to_any_state(backend: TrainingBackend) -> None:
    _, model = trained(backend)
    trainer = RECIPE.make_trainer(backend, backend.copy(model))

    def step() -> None:
        take_step(backend, trainer, DEFENSE, TRAIN[0][:20], TRAIN[1][:20], lr=0.01)

    step()
    middle = trainer.state()
    step()
    end = trainer.state()
    trainer.restore(middle)
    step()
    assert any(not np.array_equal(value, middle[key]) for key, value in end.items())
    for key, value in trainer.state().items():
        np.testing.assert_array_equal(value, end[key])


def test_all_parameters_but_one_layers_can_be_held(backend: TrainingBackend) -> None:
    """With a learning rate of 1 and no penalty but one layer's, weights tell which have moved."""
    _, model = trained(backend)
    held = OneLayer(**(asdict(DEFENSE) | {"lam": 50.0}), layer="fc2")

    def moved(objective: Objective) -> dict[str, float]:
        trainer = replace(RECIPE, weight_decay=0.0).make_trainer(backend, backend.copy(model))
        before = backend.weights(trainer.model)
        x, y = (part[:20] for part in TRAIN)
        assert take_step(backend, trainer, objective, x, y, lr=1.0) is not None
        after = backend.weights(trainer.model)
        return {name: after[name] - value for name, value in before.items()}

    plain, one, whole = (moved(o) for o in (Objective(), held, replace(DEFENSE, lam=50.0)))
    for name in plain:
        same = one[name] - (whole if name.startswith("fc2") else plain)[name]
        np.testing.assert_allclose(same, 0, atol=1e-5)
        assert np.abs(whole[name] - plain[name]).max() > 1e-3


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
    with pytest.raises(SystemExit) as left:
        cli.main(["harden", *words])
    assert left.value.code == 0
    content = json.loads(Path("run/report.json").read_text())
    assert content["backend"] == backend.name
    assert len(content["history"]) == 2
    assert Path("run/report.html").exists()


@pytest.mark.only("jax")
def test_jax_hardens_any_pytree_that_can_be_called() -> None:
    """`Partial(apply, parameters)`, as flax, haiku and stax have their models."""
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
        """A module that takes batches."""

        layers: eqx.nn.MLP

        def __call__(self, x: Any) -> Any:
            return jax.vmap(self.layers)(x.reshape(len(x), 16))

    mlp = eqx.nn.MLP(16, 3, 8, 1, dtype=np.float32, key=jax.random.key(0))
    # One that takes batches, and one that takes single examples, mapped over them.
    single = eqx.nn.Sequential([eqx.nn.Lambda(jax.numpy.ravel), mlp])
    found = []
    for model in (Network(mlp), eqx.filter_vmap(single)):
        with dd.use_backend("jax"):
            hardened, report = harden(model, recipe=replace(RECIPE, epochs=1))
        assert report.network.parameters == 16 * 8 + 8 + 8 * 3 + 3
        assert type(hardened) is type(model)
        found.append(jax.tree_util.tree_leaves(eqx.filter(hardened, eqx.is_inexact_array)))
    assert not np.array_equal(found[0][0], mlp.layers[0].weight)
    for one, other in zip(*found, strict=True):  # the same training, to rounding in float32
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.only("tensorflow")
def test_tensorflow_hardens_the_users_own_keras_model(tmp_path: Path) -> None:
    """Batch norm, dropout and a name without a PyTorch layer: all kept, all resumed exactly."""
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
    found, resumed = harden(model, out=tmp_path / "run", resume=True)
    assert same(training_backend("tensorflow"), found, expected)
    assert resumed.after == report.after
