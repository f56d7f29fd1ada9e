"""Train and harden a small network on the blobs, in any backend."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import blobs
import deepdefense as dd
from blobs import DEFENSE, TEST, TRAIN
from deepdefense.defenses.objective import Objective
from deepdefense.seam.training_contract import TrainingBackend
from deepdefense.training.epoch import take_step
from deepdefense.zoo import Network, initial_weights, mlp

BACKENDS = [pytest.param(n, marks=pytest.mark.only(n)) for n in ("torch", "jax", "tensorflow")]
RECIPE = replace(blobs.RECIPE, batch_size=30)  # divides 150, so that JAX compiles one shape


def train_network(backend: TrainingBackend) -> tuple[Network, Any]:
    """Train a zoo network on the blobs for five steps; return its description and the model."""
    network = mlp((1, 4, 4), 3, hidden=(12,))
    rng = np.random.default_rng(0)
    drawn = {k: rng.normal(0, 0.6, v.shape) for k, v in initial_weights(network, 0, 1.0).items()}
    weights = {name: value.astype(np.float32) for name, value in drawn.items()}
    trainer = RECIPE.make_trainer(backend, backend.build(network, weights))
    for start in range(0, 150, 30):
        x, y = (part[start : start + 30] for part in TRAIN)
        take_step(backend, trainer, Objective(), x, y, lr=0.05)
    return network, trainer.model


def have_same_weights(backend: TrainingBackend, a: Any, b: Any) -> bool:
    """Return whether two models of one backend have equal weights."""
    one, other = backend.weights(a), backend.weights(b)
    return all(np.array_equal(value, other[name]) for name, value in one.items())


def harden(model: Any, **options: Any) -> tuple[Any, dd.HardeningReport]:
    """Harden a model on the blobs; `options` override this module's recipe and defence."""
    return dd.harden(model, TRAIN, TEST, **{"defense": DEFENSE, "recipe": RECIPE, **options})
