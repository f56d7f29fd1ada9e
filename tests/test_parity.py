"""Tests that PyTorch, JAX and TensorFlow compute equal results for equal networks and inputs.

Each whole objective is compiled where the framework compiles (`jax.jit`, `tf.function`).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from einops import rearrange

import blobs
import deepdefense as dd
from deepdefense.defenses.objective import Objective
from deepdefense.seam.training_contract import training_backend
from deepdefense.training.epoch import train_epoch
from deepdefense.zoo import NETWORKS, Network, weight_shapes

pytestmark = [pytest.mark.only(name) for name in ("torch", "jax", "tensorflow")]

# Tolerances relative to the largest entry. The largest errors so far are 4e-15 in float64 and 2e-6
# in float32.
TOLERANCE = {"float64": 1e-9, "float32": 1e-3}
SHAPES = {"mlp": (1, 9, 9), "lenet": (2, 18, 17), "convnet": (3, 32, 32)}
Weights = dict[str, np.ndarray]


class Result(NamedTuple):
    """The results that one framework computes."""

    logits: np.ndarray
    delta: np.ndarray
    delta_steps: np.ndarray
    penalty: np.ndarray
    steps: np.ndarray
    objective: float
    gradients: Weights


def draw_weights(network: Network, seed: int, dtype: str) -> Weights:
    """Draw weights w ~ N(0, 2 / inputs), which preserve the size of activations."""
    rng = np.random.default_rng(seed)
    weights: Weights = {}
    for name, shape in weight_shapes(network).items():
        spread = 0.1 if name.endswith(".bias") else (2 / math.prod(shape[1:])) ** 0.5
        weights[name] = rng.normal(0, spread, shape).astype(dtype)
    return weights


def draw_examples(network: Network, weights: Weights, dtype: str) -> tuple[np.ndarray, np.ndarray]:
    """Draw images and labels, so that some images are misclassified."""
    rng = np.random.default_rng(1)
    x = rng.normal(size=(8, *network.input_shape)).astype(dtype)
    backend = training_backend("torch")
    model = backend.build(network, weights)
    y = backend.to_numpy(model(backend.asarray(x, model))).argmax(1)
    y[::3] = (y[::3] + 1 + rng.integers(0, network.classes - 1, len(y[::3]))) % network.classes
    return x, y


def differentiate_in_torch(model: Any, x: Any, y: Any, defense: dd.DeepDefense) -> Any:
    import torch

    total = defense.objective(model, x, y)
    names, parameters = zip(*model.named_parameters(), strict=True)
    gradients = torch.autograd.grad(total, parameters)
    return total, {n: g.numpy() for n, g in zip(names, gradients, strict=True)}


def differentiate_in_jax(model: Any, x: Any, y: Any, defense: dd.DeepDefense) -> Any:
    import jax

    objective = jax.jit(jax.value_and_grad(lambda model: defense.objective(model, x, y)))
    total, gradients = objective(model)
    return total, {name: np.array(value) for name, value in gradients.weights.items()}


def differentiate_in_tensorflow(model: Any, x: Any, y: Any, defense: dd.DeepDefense) -> Any:
    import tensorflow as tf

    from deepdefense_tensorflow.weights import name_weights

    weights = name_weights(model)

    @tf.function
    def objective(x: Any, y: Any) -> Any:
        variables = [weight.variable.value for weight in weights.values()]
        with tf.GradientTape() as tape:
            total = defense.objective(model, x, y)
        return total, tape.gradient(total, variables)

    total, gradients = objective(x, y)
    return total, {
        name: rearrange(gradient.numpy(), f"{weight.keras_axes} -> {weight.torch_axes}")
        for (name, weight), gradient in zip(weights.items(), gradients, strict=True)
    }


DIFFERENTIATE: dict[str, Callable[..., Any]] = {
    "torch": differentiate_in_torch,
    "jax": differentiate_in_jax,
    "tensorflow": differentiate_in_tensorflow,
}


def compute(name: str, kind: str, dtype: str, p: float, gradient: str) -> Result:
    network = NETWORKS[kind](SHAPES[kind], 5)
    weights = draw_weights(network, 0, dtype)
    x, y = draw_examples(network, weights, dtype)
    backend = training_backend(name)
    model = backend.build(network, weights)
    x, y = backend.asarray(x, model), backend.asarray(y, model)
    steps = 3 if gradient == "chord" else 4
    settings: dict[str, Any] = {"lam": 2.0, "c": 3.0, "d": 2.0, "p": p, "candidates": 4}
    defense = dd.DeepDefense(steps=steps, gradient=gradient, **settings)
    perturbation = dd.deepfool(model, x, p=p, steps=20)
    terms = defense.terms(model, x, y)
    total, gradients = DIFFERENTIATE[name](model, x, y, defense)
    host = backend.to_numpy
    with backend.inference(model) as f:
        logits = host(backend.forward(f, x))
    return Result(
        logits,
        host(perturbation.delta),
        host(perturbation.steps),
        host(terms.penalty),
        host(terms.steps),
        float(host(total)),
        gradients,
    )


def assert_close(actual: np.ndarray, expected: np.ndarray, dtype: str) -> None:
    scale = np.abs(expected).max()
    assert scale > 0
    assert actual.dtype == expected.dtype == dtype
    np.testing.assert_allclose(actual / scale, expected / scale, rtol=0, atol=TOLERANCE[dtype])


@pytest.mark.parametrize("gradient", ["unrolled", "implicit", "chord"])
@pytest.mark.parametrize(("p", "dtype"), [(2.0, "float32"), (math.inf, "float64")])
@pytest.mark.parametrize("kind", ["mlp", "lenet"])
def test_frameworks_compute_the_same_numbers(
    kind: str, dtype: str, p: float, gradient: str
) -> None:
    results = [compute(name, kind, dtype, p, gradient) for name in DIFFERENTIATE]
    for actual, expected in combinations(results, 2):
        np.testing.assert_array_equal(actual.delta_steps, expected.delta_steps)
        np.testing.assert_array_equal(actual.steps, expected.steps)
        for field in ("logits", "delta", "penalty"):
            assert_close(getattr(actual, field), getattr(expected, field), dtype)
        assert actual.objective == pytest.approx(expected.objective, rel=TOLERANCE[dtype])
        assert set(actual.gradients) == set(expected.gradients)
        for name, value in actual.gradients.items():
            assert_close(value, expected.gradients[name], dtype)


@pytest.mark.parametrize("kind", sorted(SHAPES))
def test_frameworks_compute_the_same_logits(kind: str) -> None:
    """These are the paper's networks; test_zoo_parity.py tests the other networks."""
    network = NETWORKS[kind](SHAPES[kind], 5)
    weights = draw_weights(network, 0, "float64")
    x = np.random.default_rng(1).normal(size=(3, *network.input_shape))
    logits = {}
    for name in DIFFERENTIATE:
        backend = training_backend(name)
        model = backend.build(network, weights)
        for key, value in backend.weights(model).items():
            np.testing.assert_array_equal(value, weights[key])
        logits[name] = backend.to_numpy(model(backend.asarray(x, model)))
    for values in logits.values():
        assert_close(values, logits["torch"], "float64")


@pytest.mark.parametrize("home", DIFFERENTIATE)
def test_hardened_in_one_framework_evaluated_in_another(home: str, tmp_path: Path) -> None:
    network = NETWORKS["mlp"]((1, 4, 4), 3)
    start = draw_weights(network, 0, "float32")
    backend = training_backend(home)
    _, report = dd.harden(
        backend.build(network, start),
        blobs.TRAIN,
        blobs.TEST,
        defense=blobs.DEFENSE,
        recipe=dd.Recipe(epochs=2, lr=0.01, batch_size=30),
        out=tmp_path / "run",
    )
    assert report.after.rho_2 != report.before.rho_2
    for name in DIFFERENTIATE:
        with dd.use_backend(name):
            model = dd.build(network, tmp_path / "run" / "hardened.safetensors")
            summary = blobs.summarize(model, *blobs.TEST)
        assert summary.accuracy == report.after.accuracy
        assert summary.rho_2 == pytest.approx(report.after.rho_2, abs=1e-4)


def test_frameworks_train_the_same_network() -> None:
    """Two epochs from equal weights, on the same batches, end with equal weights.

    The tolerance is 1e-6 because Keras stores its learning rate in float32.
    """
    network = NETWORKS["mlp"]((1, 4, 4), 3)
    start = draw_weights(network, 0, "float64")
    hardened: dict[str, Weights] = {}
    for name in DIFFERENTIATE:
        backend = training_backend(name)
        model, _ = dd.harden(
            backend.build(network, start),
            blobs.TRAIN,
            blobs.TEST,
            defense=blobs.DEFENSE,
            recipe=dd.Recipe(epochs=2, lr=0.01, batch_size=30, decay=1.0),
        )
        hardened[name] = backend.weights(model)
    for weights in hardened.values():
        for name, value in weights.items():
            np.testing.assert_allclose(value, hardened["torch"][name], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("optimizer", ["adam", "adamw"])
def test_frameworks_take_the_same_steps_of_adam(optimizer: Any) -> None:
    """Fifty steps from equal weights, on the same batches, end with equal weights.

    The tolerance is 1e-4 because Keras rounds Adam's rates to float32.
    """
    network = NETWORKS["mlp"]((1, 4, 4), 3)
    start = draw_weights(network, 0, "float64")
    recipe = dd.Recipe(
        optimizer=optimizer, optimizer_steps=50, lr=1e-3, batch_size=30, weight_decay=0.01
    )
    x, y = blobs.TRAIN
    trained: dict[str, Weights] = {}
    for name in DIFFERENTIATE:
        backend = training_backend(name)
        trainer = recipe.make_trainer(backend, backend.build(network, start))
        for period in range(recipe.periods):
            train_epoch(backend, trainer, x, y, recipe=recipe, objective=Objective(), epoch=period)
        trained[name] = backend.weights(trainer.model)
    for weights in trained.values():
        for name, value in weights.items():
            np.testing.assert_allclose(value, trained["torch"][name], rtol=0, atol=1e-4)
            assert np.abs(value - start[name]).max() > 0.005


def test_frameworks_report_the_same_evaluation() -> None:
    """The measurements agree to 1e-3 in float32."""
    network = NETWORKS["mlp"](SHAPES["mlp"], 4)
    weights = draw_weights(network, 0, "float32")
    x, y = draw_examples(network, weights, "float32")
    reports = {}
    for name in ("torch", "jax", "tensorflow"):
        model = training_backend(name).build(network, weights)
        with dd.use_backend(name):
            reports[name] = dd.evaluate(model, x, y, batch_size=5)
    for one, other in combinations(reports.values(), 2):
        assert one.accuracy == other.accuracy
        assert one.rho_2 == pytest.approx(other.rho_2, rel=1e-3)
        assert one.distances == pytest.approx(other.distances, rel=1e-3)
        assert one.headline.robust_accuracy == other.headline.robust_accuracy
        assert [c.name for c in one.checks] == [c.name for c in other.checks]
