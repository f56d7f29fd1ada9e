"""The networks of the zoo mean one thing in every framework."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

import deepdefense as dd
from blobs import DEFENSE
from deepdefense.defenses.objective import Objective
from deepdefense.seam.training import TrainingBackend, training_backend
from deepdefense.training.epoch import take_step
from deepdefense.zoo import Network, alexnet, bn_mlp, nin, resnet18
from small import (
    EXACT,
    FRAMEWORKS,
    PLAIN,
    SMALL,
    Weights,
    drawn,
    examples,
    logits,
    penalty_gradient,
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
def test_logits_are_the_same(network: Network) -> None:
    weights, (x, _) = drawn(network), examples(network, n=2)
    found = {}
    for name in FRAMEWORKS:
        backend = training_backend(name)
        model = backend.build(network, weights)
        for key, value in backend.weights(model).items():
            if not key.endswith("num_batches_tracked"):
                np.testing.assert_array_equal(value, weights[key])
        found[name] = logits(backend, model, x)
    scale = np.abs(found["torch"]).max()
    for each in found.values():
        np.testing.assert_allclose(each / scale, found["torch"] / scale, **EXACT)


@pytest.mark.parametrize("home", FRAMEWORKS)
def test_files_of_one_framework_load_in_the_others(home: str, tmp_path: Path) -> None:
    x, _ = examples(SMALL)
    backend = training_backend(home)
    model = backend.build(SMALL, drawn(SMALL))
    kept = {name: np.array(v, order="C") for name, v in backend.weights(model).items()}
    save_file(kept, tmp_path / "model.safetensors")
    for name in FRAMEWORKS:
        with dd.use_backend(name):
            other = dd.build(SMALL, tmp_path / "model.safetensors")
        found = logits(training_backend(name), other, x)
        np.testing.assert_allclose(found, logits(backend, model, x), **EXACT)


def test_the_penalty_has_the_same_gradient() -> None:
    found = {}
    for name in FRAMEWORKS:
        backend = training_backend(name)
        trainer = PLAIN.make_trainer(backend, backend.build(SMALL, drawn(SMALL)))
        found[name] = penalty_gradient(backend, trainer)
    for gradient in found.values():
        for key, value in gradient.items():
            np.testing.assert_allclose(value, found["torch"][key], **EXACT)


def trained(backend: TrainingBackend, network: Network, objective: Objective, n: int) -> Weights:
    trainer = dd.Recipe().make_trainer(backend, backend.build(network, drawn(network)))
    x, y = examples(network)
    for _ in range(n):
        assert take_step(backend, trainer, objective, x, y, lr=0.125) is not None
    return backend.weights(trainer.model)


def test_batch_norm_trains_the_same_way() -> None:
    """Hardened by PyTorch and by JAX, the running statistics included."""
    defense = replace(DEFENSE, gradient="implicit")  # which compiles in half the time
    torch, jax = (trained(training_backend(n), SMALL, defense, 3) for n in ("torch", "jax"))
    for name, value in jax.items():
        np.testing.assert_allclose(value, torch[name], **EXACT)


def test_keras_keeps_the_biased_variance() -> None:
    """Which is all that differs: its estimate moves towards (n - 1) / n of PyTorch's."""
    network = bn_mlp((5,), 3, hidden=(6,))
    torch, keras = (
        trained(training_backend(n), network, Objective(), 1) for n in ("torch", "tensorflow")
    )
    before, name, count = drawn(network), "bn1.running_var", len(examples(network)[1])
    batch = (keras[name] - 0.9 * before[name]) * count / (count - 1)
    keras[name] = 0.9 * before[name] + batch
    for key, value in keras.items():
        np.testing.assert_allclose(value, torch[key], **EXACT)
