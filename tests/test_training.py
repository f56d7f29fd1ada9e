"""Tests of training in every backend: building networks, weights, SGD, and saved states."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

import deepdefense as dd
from blobs import DEFENSE, TEST, TRAIN
from deepdefense.app.study.one_layer import OneLayer
from deepdefense.defenses.objective import Objective
from deepdefense.seam.training_contract import TrainingBackend, training_backend
from deepdefense.training.epoch import draw_batches, take_step
from deepdefense.zoo import (
    NETWORKS,
    Dropout,
    Linear,
    Network,
    bn_mlp,
    initial_weights,
    is_statistic,
    mlp,
)
from native_blobs import BACKENDS, RECIPE, have_same_weights, train_network


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> TrainingBackend:
    return training_backend(request.param)


def get_input_shape(name: str) -> tuple[int, int, int]:
    return (3, 32, 32) if name == "convnet" else (2, 20, 21)


@pytest.mark.parametrize(
    "name", ["convnet", "lenet", "mlp"]
)  # test_zoo.py tests the other networks
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_build_gives_the_described_weights_and_logits(
    backend: TrainingBackend, name: str, dtype: Any
) -> None:
    network = NETWORKS[name](get_input_shape(name), 7)
    drawn = initial_weights(network, 0, 79.0)
    weights = {key: value.astype(dtype) for key, value in drawn.items()}
    model = backend.build(network, weights)
    built = backend.weights(model)
    assert set(built) == set(weights)
    for key, value in built.items():
        assert value.dtype == dtype
        np.testing.assert_array_equal(value, weights[key])
    x = backend.asarray(np.ones((2, *get_input_shape(name)), np.float32), model)
    logits = backend.to_numpy(model(x))
    assert logits.shape == (2, 7)
    assert logits.dtype == dtype
    zero = backend.load(backend.copy(model), {key: 0 * value for key, value in weights.items()})
    np.testing.assert_array_equal(backend.to_numpy(zero(x)), 0)
    # Loading weights into the copy must not change the model.
    np.testing.assert_array_equal(backend.to_numpy(model(x)), logits)


def test_models_are_built_on_the_device_asked_for(backend: TrainingBackend) -> None:
    network = mlp((4,), 3, hidden=(5,))
    for device in (None, "cpu", "cpu:0"):
        with backend.on_device(device):
            model = backend.build(network, initial_weights(network, 0, 1.0))
            assert backend.asarray(np.ones((2, 4)), model).shape == (2, 4)
    for device in ("gpu:99", "nowhere", "cpu:x"):
        with pytest.raises(dd.InputError, match=f"device.* {device!r}"), backend.on_device(device):
            pass


def test_calibration_takes_arrays_of_any_kind(backend: TrainingBackend) -> None:
    network = mlp((1, 4, 4), 3, hidden=(8,))
    model = backend.build(network, initial_weights(network, 0, 1.0))
    x, y = TRAIN
    expected = dd.calibrate(model, x, y)
    assert dd.calibrate(model, backend.asarray(x, model), y.tolist()) == expected
    assert dd.calibrate(model, backend.asarray(x, model), backend.asarray(y, model)) == expected


def test_build_takes_weights_in_any_form(backend: TrainingBackend, tmp_path: Path) -> None:
    network = dd.zoo.mlp((4,), 3, hidden=(5,))
    with pytest.raises(dd.InputError, match="choose a framework first"):
        dd.build(network)
    with dd.use_backend(backend.name):
        model = dd.build(network, seed=3)
        weights = backend.weights(model)
        save_file(weights, tmp_path / "w.safetensors")
        for source in (weights, tmp_path / "w.safetensors", str(tmp_path / "w.safetensors")):
            assert have_same_weights(backend, dd.build(network, source), model)
        renamed = {k.replace("2.w", "3.w"): v for k, v in weights.items()}
        with pytest.raises(dd.InputError, match=r"lacks fc2\.weight and has fc3\.weight"):
            dd.build(network, renamed)
        with pytest.raises(dd.InputError, match=r"fc1\.bias must have shape \[5\], it has \[6\]"):
            dd.build(network, weights | {"fc1.bias": np.zeros(6)})
        with pytest.raises(dd.InputError, match=r"no file|not found|does not exist"):
            dd.build(network, tmp_path / "none.safetensors")


def test_sgd_equals_its_definition(backend: TrainingBackend) -> None:
    """SGD: v <- m v + g + decay w, w <- w - lr v. Softmax regression has an analytic g."""
    network = mlp((4,), 3, hidden=())
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(10, 4)), rng.integers(0, 3, 10)
    start = {"fc1.weight": rng.normal(size=(3, 4)), "fc1.bias": rng.normal(size=3)}
    recipe = dd.Recipe(lr=0.3, momentum=0.8, weight_decay=0.1)
    trainer = recipe.make_trainer(backend, backend.build(network, start))
    expected = {key: value.copy() for key, value in start.items()}
    velocity = {key: np.zeros_like(value) for key, value in start.items()}
    for _ in range(3):
        logits = x @ expected["fc1.weight"].T + expected["fc1.bias"]
        powers = np.exp(logits - logits.max(1, keepdims=True))
        error = (powers / powers.sum(1, keepdims=True) - np.eye(3)[y]) / len(x)
        for key, gradient in (("fc1.weight", error.T @ x), ("fc1.bias", error.sum(0))):
            velocity[key] = 0.8 * velocity[key] + gradient + 0.1 * expected[key]
            expected[key] = expected[key] - 0.3 * velocity[key]
        taken = take_step(backend, trainer, Objective(), x, y, lr=0.3)
        assert taken is not None
        entropy = np.log(powers.sum(1)) + logits.max(1) - logits[np.arange(10), y]
        assert taken.total == pytest.approx(entropy.mean())
    for key, value in backend.weights(trainer.model).items():
        np.testing.assert_allclose(value, expected[key], rtol=1e-6)


@pytest.mark.only("torch")
def test_no_batch_has_a_single_example() -> None:
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

    def find_step(clip: float) -> tuple[np.ndarray, float]:
        trainer = recipe.make_trainer(backend, backend.build(network, start))
        taken = take_step(backend, trainer, Objective(), x, y, lr=1.0, clip=clip)
        assert taken is not None
        after = backend.weights(trainer.model)
        moves = [(1 - 0.1) * start[key] - after[key] for key in start]
        return np.concatenate([move.ravel() for move in moves]), taken.gradient

    unclipped, length = find_step(np.inf)
    np.testing.assert_allclose(np.linalg.norm(unclipped), length, rtol=1e-6)
    clipped, same_length = find_step(length / 3)
    assert same_length == pytest.approx(length)
    np.testing.assert_allclose(clipped, unclipped / 3, rtol=1e-6)
    np.testing.assert_allclose(find_step(3 * length)[0], unclipped, rtol=1e-6)


@pytest.mark.parametrize("decoupled", [False, True])
def test_adam_equals_its_definition(backend: TrainingBackend, decoupled: bool) -> None:
    """Take 50 steps of softmax regression, whose gradient is analytic, partly below epsilon."""
    network = mlp((4,), 3, hidden=())
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(10, 4)) * [1.0, 1e-3, 1e-6, 1e-8], rng.integers(0, 3, 10)
    start = {"fc1.weight": rng.normal(size=(3, 4)), "fc1.bias": rng.normal(size=3)}
    recipe = dd.Recipe(optimizer="adamw" if decoupled else "adam", weight_decay=1e-8, momentum=0.5)
    if decoupled:
        recipe = replace(recipe, weight_decay=0.1)
    trainer = recipe.make_trainer(backend, backend.build(network, start))
    w = {key: value.copy() for key, value in start.items()}
    m, v = ({key: np.zeros_like(value) for key, value in start.items()} for _ in range(2))
    for step in range(1, 51):
        logits = x @ w["fc1.weight"].T + w["fc1.bias"]
        powers = np.exp(logits - logits.max(1, keepdims=True))
        error = (powers / powers.sum(1, keepdims=True) - np.eye(3)[y]) / len(x)
        for key, gradient in (("fc1.weight", error.T @ x), ("fc1.bias", error.sum(0))):
            decay = recipe.weight_decay * w[key]
            gradient = gradient if decoupled else gradient + decay
            m[key] = 0.9 * m[key] + 0.1 * gradient
            v[key] = 0.999 * v[key] + 0.001 * gradient**2
            scale = np.sqrt(v[key] / (1 - 0.999**step)) + 1e-8
            update = m[key] / (1 - 0.9**step) / scale
            w[key] = w[key] - 0.05 * (update + decay if decoupled else update)
        assert take_step(backend, trainer, Objective(), x, y, lr=0.05) is not None
    # Keras rounds the rates 0.9 and 0.999 to float32.
    tolerance = 1e-4 if backend.name == "tensorflow" else 1e-9
    for key, value in backend.weights(trainer.model).items():
        np.testing.assert_allclose(value, w[key], rtol=tolerance)
        assert np.abs(value - start[key]).max() > 0.1


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
def test_trainer_restores_an_earlier_state(backend: TrainingBackend, optimizer: Any) -> None:
    _, model = train_network(backend)
    recipe = replace(RECIPE, optimizer=optimizer)
    trainer = recipe.make_trainer(backend, backend.copy(model))

    def step() -> None:
        take_step(backend, trainer, DEFENSE, TRAIN[0][:20], TRAIN[1][:20], lr=0.01)

    step()
    middle = trainer.state()
    step()
    end = trainer.state()
    assert any(not np.array_equal(value, middle[key]) for key, value in end.items())
    another = recipe.make_trainer(backend, backend.copy(model))  # as in a resumed run
    for resumed in (trainer, another):
        resumed.restore(middle)
        take_step(backend, resumed, DEFENSE, TRAIN[0][:20], TRAIN[1][:20], lr=0.01)
        state = resumed.state()
        assert set(state) == set(end)
        for key, value in state.items():
            np.testing.assert_array_equal(value, end[key])


def test_the_penalty_can_train_one_layer_alone(backend: TrainingBackend) -> None:
    """After a step, the chosen layer equals that of a step with the penalty, others one without."""
    _, model = train_network(backend)
    one_layer = OneLayer(**(asdict(DEFENSE) | {"lam": 50.0}), layer="fc2")

    def find_steps(objective: Objective) -> dict[str, float]:
        trainer = replace(RECIPE, weight_decay=0.0).make_trainer(backend, backend.copy(model))
        before = backend.weights(trainer.model)
        x, y = (part[:20] for part in TRAIN)
        assert take_step(backend, trainer, objective, x, y, lr=1.0) is not None
        after = backend.weights(trainer.model)
        return {name: after[name] - value for name, value in before.items()}

    plain, one, whole = (
        find_steps(o) for o in (Objective(), one_layer, replace(DEFENSE, lam=50.0))
    )
    for name in plain:
        difference = one[name] - (whole if name.startswith("fc2") else plain)[name]
        np.testing.assert_allclose(difference, 0, atol=1e-5)
        assert np.abs(whole[name] - plain[name]).max() > 1e-3


@pytest.mark.parametrize("mode", ["training", "inference"])
def test_inference_mode_freezes_batch_norm_statistics(backend: TrainingBackend, mode: Any) -> None:
    network = bn_mlp((1, 4, 4), 3, hidden=(6,))
    recipe = replace(RECIPE, mode=mode, epochs=1, optimizer="adam")
    model = backend.build(network, initial_weights(network, 0, 1.0))
    before = backend.weights(model)
    hardened, report = dd.harden(model, TRAIN, TEST, defense=DEFENSE, recipe=recipe)
    assert report.stopped is None
    moved = {n for n, v in backend.weights(hardened).items() if not np.array_equal(v, before[n])}
    assert {"fc1.weight", "bn1.weight", "bn1.bias", "fc2.weight", "fc2.bias"} <= moved
    statistics = {name for name in before if is_statistic(name)}
    assert {"bn1.running_mean", "bn1.running_var"} <= statistics
    assert moved & statistics == (statistics if mode == "training" else set())


def test_inference_mode_has_no_dropout(backend: TrainingBackend) -> None:
    """Two steps at learning rate 0 have the same loss, that of the network in inference mode."""
    network = Network(
        "dropped", (4,), 3, (Linear("fc1", 4, 20), Dropout(0.5), Linear("fc2", 20, 3)), "fan-in"
    )
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(10, 4)), rng.integers(0, 3, 10)
    model = backend.build(network, initial_weights(network, 0, 1.0))
    trainer = dd.Recipe().make_trainer(backend, model)

    def find_losses(mode: Any) -> set[float]:
        steps = [take_step(backend, trainer, Objective(), x, y, lr=0.0, mode=mode) for _ in "ab"]
        return {step.total for step in steps if step is not None}

    assert len(find_losses("training")) == 2
    with backend.inference(trainer.model) as f:
        logits = backend.to_numpy(backend.forward(f, backend.asarray(x, trainer.model)))
    entropy = np.log(np.exp(logits).sum(1)) - logits[np.arange(10), y]
    [loss] = find_losses("inference")
    assert loss == pytest.approx(entropy.mean(), rel=1e-5)
