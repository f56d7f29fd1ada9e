"""Small float64 networks for tests, with class gradients by an explicit chain rule."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

Array: TypeAlias = npt.NDArray[np.float64]
Activation: TypeAlias = Literal["tanh", "relu", "softplus", "identity"]

DIFFERENCE = float(np.finfo(np.float64).eps) ** (1.0 / 3.0)


def activate(z: Array, activation: Activation) -> Array:
    """Apply the activation h to each entry of z."""
    if activation == "tanh":
        return np.tanh(z)
    if activation == "relu":
        return np.maximum(z, 0.0)
    if activation == "softplus":
        return np.logaddexp(0.0, z)  # log(1 + e^z), without overflow
    if activation == "identity":
        return z
    raise ValueError(f"unknown activation: {activation!r}")


def slope(z: Array, activation: Activation) -> Array:
    """Return the derivative h'(z) for each entry of z, with the value 0 for relu at 0."""
    if activation == "tanh":
        return 1.0 - np.tanh(z) ** 2
    if activation == "relu":
        return np.where(z > 0.0, 1.0, 0.0)
    if activation == "softplus":
        return 0.5 * (1.0 + np.tanh(0.5 * z))  # the logistic function, without overflow
    if activation == "identity":
        return np.ones_like(z)
    raise ValueError(f"unknown activation: {activation!r}")


@dataclass(frozen=True, eq=False)
class TinyNetwork:
    """A fully connected network: f(x) = W_L h(... h(W_1 x + b_1) ...) + b_L.

    The input x may have any shape and is flattened. W_i has shape [out, in] and b_i [out]. The last
    layer has no activation, so a network of one layer is linear.
    """

    weights: tuple[Array, ...]
    biases: tuple[Array, ...]
    activation: Activation

    @classmethod
    def draw(
        cls, rng: np.random.Generator, sizes: Sequence[int], activation: Activation
    ) -> TinyNetwork:
        """Draw a network of the layer sizes [in, ..., k], with random weights and biases.

        W_i is drawn from N(0, gain / in_i), with in_i the number of inputs of layer i, and b_i from
        N(0, 0.1^2). The gain is 2 for relu (He et al., 2015), else 1 (LeCun et al., 1998).
        """
        gain = 2.0 if activation == "relu" else 1.0
        weights: list[Array] = []
        biases: list[Array] = []
        for width_in, width_out in pairwise(sizes):
            weights.append(rng.normal(0.0, (gain / width_in) ** 0.5, (width_out, width_in)))
            biases.append(rng.normal(0.0, 0.1, width_out))
        return cls(tuple(weights), tuple(biases), activation)

    def __call__(self, batch: Array) -> Array:
        """Return the logits [b k] of a batch [b ...], computed for one example at a time."""
        rows = [self.logits(x) for x in batch]
        return np.array(rows, dtype=np.float64).reshape(len(rows), self.biases[-1].size)

    def logits(self, x: Array) -> Array:
        """Return the logits f(x) [k] of one example."""
        return self._preactivations(x)[-1]

    def class_gradients(self, x: Array) -> Array:
        """Return the gradients grad_x f_j(x), stacked over the classes j: [k, *x.shape].

        Chain rule, from the last layer: J_L = W_L and J_i = J_{i+1} diag(h'(z_i)) W_i.
        """
        z = self._preactivations(x)
        jacobian = self.weights[-1]
        for i in reversed(range(len(self.weights) - 1)):
            jacobian = (jacobian * slope(z[i], self.activation)) @ self.weights[i]
        return jacobian.reshape(-1, *np.shape(x)).copy()

    def parameters(self) -> Array:
        """Return all parameters as one vector: W_1 by rows, b_1, W_2, b_2, ..."""
        parts: list[Array] = []
        for weight, bias in zip(self.weights, self.biases, strict=True):
            parts.append(weight.ravel())
            parts.append(bias.ravel())
        return np.concatenate(parts).astype(np.float64)

    def with_parameters(self, vector: Array) -> TinyNetwork:
        """Return a network whose parameters are the entries of `vector`.

        Their order is that of `parameters`.
        """
        expected = sum(w.size + b.size for w, b in zip(self.weights, self.biases, strict=True))
        if vector.shape != (expected,):
            raise ValueError(f"expected {expected} parameters, got shape {vector.shape}")
        weights: list[Array] = []
        biases: list[Array] = []
        start = 0
        for weight, bias in zip(self.weights, self.biases, strict=True):
            middle, end = start + weight.size, start + weight.size + bias.size
            weights.append(vector[start:middle].reshape(weight.shape).copy())
            biases.append(vector[middle:end].reshape(bias.shape).copy())
            start = end
        return TinyNetwork(tuple(weights), tuple(biases), self.activation)

    def with_logits(self, scale: float, shift: float) -> TinyNetwork:
        """Return a network with the logits scale * (f(x) + shift)."""
        return TinyNetwork(
            (*self.weights[:-1], scale * self.weights[-1]),
            (*self.biases[:-1], scale * (self.biases[-1] + shift)),
            self.activation,
        )

    def _preactivations(self, x: Array) -> list[Array]:
        """Return z_1 = W_1 x + b_1 and z_i = W_i h(z_{i-1}) + b_i; the last one, z_L, is f(x)."""
        a = np.asarray(x, dtype=np.float64).reshape(-1)
        z: list[Array] = []
        for weight, bias in zip(self.weights, self.biases, strict=True):
            z.append(weight @ a + bias)
            a = activate(z[-1], self.activation)
        return z


def central_differences(network: TinyNetwork, value: Callable[[TinyNetwork], float]) -> Array:
    """Return the gradient of the function v = `value` in the network's parameters W.

    Its entry i is (v(W + h e_i) - v(W - h e_i)) / 2h, with h = epsilon^(1/3) max(1, |W_i|), where
    epsilon is the machine epsilon of float64.
    """
    start = network.parameters()
    gradient = np.zeros_like(start)
    for i in range(start.size):
        h = DIFFERENCE * max(1.0, abs(float(start[i])))
        above, below = start.copy(), start.copy()
        above[i] += h
        below[i] -= h
        rise = value(network.with_parameters(above)) - value(network.with_parameters(below))
        gradient[i] = rise / float(above[i] - below[i])
    return gradient
