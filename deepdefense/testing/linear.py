"""Linear networks, for which distances to the decision boundary are known in closed form."""

from __future__ import annotations

import math

import numpy as np

from deepdefense_numpy.networks import TinyNetwork

__all__ = [
    "INPUT_SIZE",
    "draw_linear_network",
    "make_linear_network",
    "measure_boundary_distances",
    "measure_lengths",
]

BATCH_SIZE, INPUT_SIZE = 6, 12  # examples in a batch, coordinates of an example


def make_linear_network(weight: list[list[float]], bias: list[float]) -> TinyNetwork:
    """Return the network of one layer with this weight [k d] and bias [k]."""
    return TinyNetwork((np.array(weight),), (np.array(bias),), "identity")


def draw_linear_network(
    classes: int, seed: int, scale: float = 1.0
) -> tuple[TinyNetwork, np.ndarray]:
    """Draw a linear network and examples.

    `scale` multiplies the examples and divides the weights, so it does not change the logits.
    """
    rng = np.random.default_rng(seed)
    weight = rng.normal(size=(classes, INPUT_SIZE)) / scale
    network = TinyNetwork((weight,), (rng.normal(size=classes),), "identity")
    return network, scale * rng.normal(size=(BATCH_SIZE, INPUT_SIZE))


def measure_boundary_distances(network: TinyNetwork, x: np.ndarray, p: float) -> np.ndarray:
    """Return the l_p distances [b k-1] of x [b ...] to the k - 1 boundaries of its class.

    Let f_j be the logit of class j, w_j the weights of this logit, and i the predicted class of x.
    The distance to the boundary between the classes i and j of a linear network is
    |f_j(x) - f_i(x)| / ||w_j - w_i||_q, where (1 / p) + (1 / q) = 1.
    """
    weight, logits = network.weights[0], network(x)
    q = {1.0: math.inf, math.inf: 1.0}.get(p) or p / (p - 1)
    return np.array(
        [
            [
                abs(row[j] - row[k]) / np.linalg.norm(weight[j] - weight[k], q)
                for j in range(len(row))
                if j != k
            ]
            for row, k in zip(logits, logits.argmax(1), strict=True)
        ]
    )


def measure_lengths(delta: np.ndarray, p: float) -> np.ndarray:
    """Return the p-norms [b] of the perturbations delta [b ...]."""
    norms: np.ndarray = np.linalg.norm(delta.reshape(len(delta), -1), p, axis=1)
    return norms
