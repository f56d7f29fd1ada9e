"""A small network of every kind of layer, and what the tests of the zoo ask of one."""

from __future__ import annotations

from typing import Any

import numpy as np
from einops import reduce

import deepdefense as dd
from blobs import DEFENSE
from deepdefense.defenses.objective import Objective
from deepdefense.seam.training import Losses, Trainer, TrainingBackend
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

# In float64. The largest errors seen: 4e-15 in one pass, 2e-15 after training.
EXACT = {"rtol": 0, "atol": 1e-10}

# All kinds of layers: negative numbers in the padding of a maximum, a stride that leaves a rest,
# padding that counts in a mean, windows that overlap because there are more of them than pixels.
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


def drawn(network: Network) -> Weights:
    """Initial weights with everything moved that begins at 0 or 1."""
    rng, weights = np.random.default_rng(0), {}
    for name, value in initial_weights(network, 0, 1.0).items():
        moved = rng.uniform(0, 0.3, value.shape) if value.ndim == 1 else 0
        weights[name] = value.astype(np.float64) + moved
    return weights


def examples(network: Network, n: int = 4) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    return rng.normal(size=(n, *network.input_shape)), rng.integers(0, network.classes, n)


def logits(backend: TrainingBackend, model: Any, x: np.ndarray) -> np.ndarray:
    with backend.inference(model) as f:
        return backend.to_numpy(backend.forward(f, backend.asarray(x, model)))


class Penalty(Objective):
    """The penalty alone: nothing is asked of the model as it trains."""

    def losses(self, backend: Any, forward: Any, model: Any, x: Any, y: Any, *_: Any) -> Losses:
        mean = reduce(DEFENSE(model, x, y), "b ->", "mean")
        return Losses(mean, mean * 0, mean, mean * 0, mean * 0)


def penalty_of(backend: TrainingBackend, trainer: Trainer, lr: float) -> float:
    """The mean penalty of the small network as it stands, and one step against its gradient."""
    taken = take_step(backend, trainer, Penalty(), *examples(SMALL), lr=lr)
    assert taken is not None
    return taken.total


def penalty_gradient(backend: TrainingBackend, trainer: Trainer) -> Weights:
    """Found by a step of length 1."""
    before = backend.weights(trainer.model)
    assert penalty_of(backend, trainer, lr=1.0) > 0
    after = backend.weights(trainer.model)
    return {name: before[name] - after[name] for name in before}
