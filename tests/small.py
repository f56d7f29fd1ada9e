"""A small network with every kind of layer, and helpers for tests of the zoo."""

from __future__ import annotations

from typing import Any

import numpy as np
from einops import reduce

import deepdefense as dd
from blobs import DEFENSE
from deepdefense.defenses.objective import Objective
from deepdefense.seam.training_contract import Losses, Trainer, TrainingBackend
from deepdefense.training.epoch import take_step
from deepdefense.zoo import (
    AdaptiveAveragePool,
    AveragePool,
    BatchNorm,
    Block,
    Conv,
    Flatten,
    Linear,
    MaxPool,
    Network,
    ReLU,
    Residual,
    initial_weights,
)

FRAMEWORKS = ("torch", "jax", "tensorflow")
Weights = dict[str, np.ndarray]

# The tolerance in float64. The largest errors so far: 4e-15 in one pass, 2e-15 after training.
EXACT = {"rtol": 0, "atol": 1e-10}

# The network has every kind of layer, and cases in which frameworks may differ: max pooling over
# padding and negative values, a stride that does not divide the image's side, average pooling over
# padding, and adaptive pooling with more windows than pixels, so that windows overlap.
SMALL = Network(
    "small",
    (2, 13, 12),
    3,
    (
        Conv("conv1", 2, 4, 3, padding=1, stride=2, bias=False),
        BatchNorm("bn1", 4),
        MaxPool(3, stride=2, padding=1),
        ReLU(),
        Block(
            "layer1",
            (
                Residual("0", (Conv("conv1", 4, 4, 3, padding=1), BatchNorm("bn1", 4))),
                Residual(
                    "1",
                    (Conv("conv1", 4, 5, 3, padding=1, stride=2), BatchNorm("bn1", 5)),
                    (Block("downsample", (Conv("0", 4, 5, 1, stride=2), BatchNorm("1", 5))),),
                ),
            ),
        ),
        AveragePool(2, stride=1, padding=1),
        AdaptiveAveragePool(2),
        Flatten(),
        Linear("fc", 20, 3),
    ),
    spread="fan-in",
)
PLAIN = dd.Recipe(momentum=0.0, weight_decay=0.0)


def draw_weights(network: Network) -> Weights:
    """Return initial weights, with random changes to those that are initially all 0 or all 1."""
    rng, weights = np.random.default_rng(0), {}
    for name, value in initial_weights(network, 0, 1.0).items():
        moved = rng.uniform(0, 0.3, value.shape) if value.ndim == 1 else 0
        weights[name] = value.astype(np.float64) + moved
    return weights


def draw_examples(network: Network, n: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """Return n random examples and labels for a network."""
    rng = np.random.default_rng(1)
    return rng.normal(size=(n, *network.input_shape)), rng.integers(0, network.classes, n)


def compute_logits(backend: TrainingBackend, model: Any, x: np.ndarray) -> np.ndarray:
    """Return the logits [b k] of a model in inference mode."""
    with backend.inference(model) as f:
        return backend.to_numpy(backend.forward(f, backend.asarray(x, model)))


class PenaltyAlone(Objective):
    """An objective of the penalty alone, which never calls the model in training mode."""

    def losses(self, backend: Any, forward: Any, model: Any, x: Any, y: Any, *_: Any) -> Losses:
        mean = reduce(DEFENSE(model, x, y), "b ->", "mean")
        return Losses(mean, mean * 0, mean, mean * 0, mean * 0)


def step_on_penalty(backend: TrainingBackend, trainer: Trainer, lr: float) -> float:
    """Train the small network for one step on the penalty alone; return the mean penalty."""
    taken = take_step(backend, trainer, PenaltyAlone(), *draw_examples(SMALL), lr=lr)
    assert taken is not None
    return taken.total


def find_penalty_gradient(backend: TrainingBackend, trainer: Trainer) -> Weights:
    """Return the gradient of the mean penalty, which is the step at learning rate 1."""
    before = backend.weights(trainer.model)
    assert step_on_penalty(backend, trainer, lr=1.0) > 0
    after = backend.weights(trainer.model)
    return {name: before[name] - after[name] for name in before}
