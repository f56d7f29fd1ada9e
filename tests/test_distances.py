"""Tests of `measure_distances`, which measures the distances of examples by strong attacks."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

import deepdefense as dd
from blobs import TEST
from deepdefense.evaluation.distances import measure_distances, name_distance_attacks
from deepdefense.seam.training_contract import TrainingBackend, training_backend
from native_blobs import BACKENDS, train_network

X, Y = TEST[0].astype(np.float32), TEST[1]


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> TrainingBackend:
    return training_backend(request.param)


def attack(backend: TrainingBackend, model: Any, attack: Any, **options: Any) -> np.ndarray:
    """Return the distances [n] that one attack finds, with 0 for misclassified examples."""
    x, y = backend.asarray(X, model), backend.asarray(Y, model)
    result = attack(model, x, y, **options)
    flat = (backend.to_numpy(result.x) - X).reshape(len(X), -1).astype(float)
    distance = np.linalg.norm(flat, options.get("p", 2), axis=1)
    return np.where(backend.to_numpy(result.success), distance, math.inf)


def test_is_the_nearer_of_ddn_and_fmn(backend: TrainingBackend) -> None:
    _, model = train_network(backend)
    distance, correct = measure_distances(backend, model, X, Y, steps=20)
    expected = np.minimum(
        attack(backend, model, dd.ddn, steps=20), attack(backend, model, dd.fmn, steps=20)
    )
    np.testing.assert_allclose(distance, expected, rtol=1e-6)
    assert distance.dtype == np.float64
    with backend.inference(model) as f:
        logits = backend.to_numpy(f(backend.asarray(X, model)))
    np.testing.assert_array_equal(correct, logits.argmax(1) == Y)
    assert 0 < correct.sum() < len(Y)
    np.testing.assert_array_equal(distance == 0, ~correct)


@pytest.mark.only("torch")
def test_batches_give_the_same_distances() -> None:
    backend = training_backend("torch")
    _, model = train_network(backend)
    done: list[int] = []
    whole, _ = measure_distances(backend, model, X, Y, steps=10)
    parts, correct = measure_distances(
        backend, model, X, Y, steps=10, batch_size=25, progress=done.append
    )
    np.testing.assert_allclose(parts, whole, rtol=1e-4)
    assert done == [25, 50, 60]
    assert correct.shape == (60,)


@pytest.mark.only("torch")
def test_measures_in_other_norms_and_within_bounds() -> None:
    backend = training_backend("torch")
    _, model = train_network(backend)
    euclidean, _ = measure_distances(backend, model, X, Y)
    for p in (1, 1.5, math.inf):
        distance, correct = measure_distances(backend, model, X, Y, p=p)
        reached = np.isfinite(distance)
        assert reached.mean() > (0.99 if p > 2 else 0.9)  # DeepFool fails at times
        ratio = distance[correct & reached] / euclidean[correct & reached]
        assert (ratio < 1).all() if p > 2 else (ratio > 0.9).all()
    assert name_distance_attacks(math.inf) == ("FMN", "SuperDeepFool")
    bounds = float(X.min()), float(X.max())
    within, _ = measure_distances(backend, model, X, Y, bounds=bounds)
    assert np.median(within) >= 0.99 * np.median(euclidean)


@pytest.mark.only("torch")
def test_distance_is_infinite_where_no_attack_succeeds() -> None:
    import torch

    backend = training_backend("torch")

    class Constant(torch.nn.Module):
        """A network whose logits do not depend on the input, and favour class 1."""

        def __init__(self) -> None:
            super().__init__()
            self.bias = torch.nn.Parameter(torch.tensor([0.0, 2.0, 0.0]))

        def forward(self, x: Any) -> Any:
            return 0 * x.flatten(1)[:, :3] + self.bias

    distance, correct = measure_distances(backend, Constant(), X, Y)
    np.testing.assert_array_equal(correct, Y == 1)
    np.testing.assert_array_equal(distance, np.where(Y == 1, math.inf, 0.0))
