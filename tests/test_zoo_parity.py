"""Tests that the zoo's networks compute and train alike in every framework."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

import deepdefense as dd
from blobs import DEFENSE
from deepdefense.defenses.objective import Objective
from deepdefense.seam.training_contract import TrainingBackend, training_backend
from deepdefense.training.epoch import take_step
from deepdefense.zoo import Network, alexnet, bn_mlp, nin, resnet18
from small import (
    EXACT,
    FRAMEWORKS,
    PLAIN,
    SMALL,
    Weights,
    compute_logits,
    draw_examples,
    draw_weights,
    find_penalty_gradient,
)

pytestmark = [pytest.mark.only(name) for name in FRAMEWORKS]


@pytest.mark.parametrize(
    "network",
    [
        SMALL,
        bn_mlp((1, 5, 6), 3),
        nin((3, 8, 9), 3),
        resnet18((3, 33, 32), 3),
        alexnet((3, 67, 63), 3, hidden=32),
    ],
    ids=lambda network: network.name,
)
def test_frameworks_compute_the_same_logits(network: Network) -> None:
    weights, (x, _) = draw_weights(network), draw_examples(network, n=2)
    results = {}
    for name in FRAMEWORKS:
        backend = training_backend(name)
        model = backend.build(network, weights)
        for key, value in backend.weights(model).items():
            if not key.endswith("num_batches_tracked"):
                np.testing.assert_array_equal(value, weights[key])
        results[name] = compute_logits(backend, model, x)
    scale = np.abs(results["torch"]).max()
    for result in results.values():
        np.testing.assert_allclose(result / scale, results["torch"] / scale, **EXACT)


@pytest.mark.parametrize("home", FRAMEWORKS)
def test_files_of_one_framework_load_in_the_others(home: str, tmp_path: Path) -> None:
    x, _ = draw_examples(SMALL)
    backend = training_backend(home)
    model = backend.build(SMALL, draw_weights(SMALL))
    weights = {name: np.array(v, order="C") for name, v in backend.weights(model).items()}
    save_file(weights, tmp_path / "model.safetensors")
    for name in FRAMEWORKS:
        with dd.use_backend(name):
            other = dd.build(SMALL, tmp_path / "model.safetensors")
        result = compute_logits(training_backend(name), other, x)
        np.testing.assert_allclose(result, compute_logits(backend, model, x), **EXACT)


def test_frameworks_compute_the_same_penalty_gradient() -> None:
    results = {}
    for name in FRAMEWORKS:
        backend = training_backend(name)
        trainer = PLAIN.make_trainer(backend, backend.build(SMALL, draw_weights(SMALL)))
        results[name] = find_penalty_gradient(backend, trainer)
    for gradient in results.values():
        for key, value in gradient.items():
            np.testing.assert_allclose(value, results["torch"][key], **EXACT)


def train(backend: TrainingBackend, network: Network, objective: Objective, n: int) -> Weights:
    """Train the network for n steps, and return its weights."""
    trainer = dd.Recipe().make_trainer(backend, backend.build(network, draw_weights(network)))
    x, y = draw_examples(network)
    for _ in range(n):
        assert take_step(backend, trainer, objective, x, y, lr=0.125) is not None
    return backend.weights(trainer.model)


def test_batch_norm_trains_alike_in_torch_and_jax() -> None:
    """Compare weights and running statistics after three steps of hardening."""
    defense = replace(DEFENSE, gradient="implicit")  # because it compiles faster
    torch, jax = (train(training_backend(n), SMALL, defense, 3) for n in ("torch", "jax"))
    for name, value in jax.items():
        np.testing.assert_allclose(value, torch[name], **EXACT)


def test_keras_keeps_the_biased_variance() -> None:
    """Keras averages (n - 1) / n of PyTorch's variance, the only difference between the two."""
    network = bn_mlp((5,), 3, hidden=(6,))
    torch, keras = (
        train(training_backend(n), network, Objective(), 1) for n in ("torch", "tensorflow")
    )
    before, name, count = draw_weights(network), "bn1.running_var", len(draw_examples(network)[1])
    batch = (keras[name] - 0.9 * before[name]) * count / (count - 1)
    keras[name] = 0.9 * before[name] + batch
    for key, value in keras.items():
        np.testing.assert_allclose(value, torch[key], **EXACT)
