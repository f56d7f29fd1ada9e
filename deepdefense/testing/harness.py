"""The base class of the kit's tests, and tools to run and differentiate networks in a backend."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, ClassVar

import numpy as np
from einops import einsum, reduce
from hypothesis import assume

from deepdefense.seam.choosing import get_backend
from deepdefense.seam.contract import Backend
from deepdefense.testing.strategies import Case
from deepdefense_numpy.networks import TinyNetwork

__all__ = ["AUTODIFF", "DIFFERENCE", "NESTED", "SINGLE", "Harness", "differentiate_numerically"]

# The tolerances of the tests, each with the largest error that the tests have shown.
AUTODIFF = 1e-9  # for gradients by automatic differentiation in float64; largest error 2e-15
DIFFERENCE = 1e-6  # for values from one finite difference in float64; largest error 3e-10
NESTED = 1e-5  # for finite differences of finite differences in float64; largest error 4e-7
SINGLE = 1e-4  # for perturbations in float32; largest error 3e-6

# `Harness.find_slopes` sets the parameters to W + PARAMETER_STEP * t * direction. It differentiates
# with respect to t at t = 0. The step is so small that finite differences in t cross no kink.
PARAMETER_STEP = 0.04


def differentiate_numerically(value: Callable[[float], float], h: float = 3e-5) -> float:
    """Return the derivative of `value` at 0, by a central difference of fourth order in h."""
    near, far = (value(h) - value(-h)), (value(2 * h) - value(-2 * h))
    return (8 * near - far) / (12 * h)


def _to_numpy(backend: Backend, value: Any) -> Any:
    """Convert a backend's array, or every array of a (named) tuple, to NumPy."""
    if not isinstance(value, tuple):
        return backend.to_numpy(value)
    parts = [_to_numpy(backend, part) for part in value]
    return type(value)(*parts) if hasattr(value, "_fields") else tuple(parts)


class Harness:
    """The base class of all tests, which runs networks and functions in one backend.

    Attributes:
        backend: the name of the backend's entry point, which a subclass sets.
        exactness: the tolerance for the backend's input gradients in float64.
        activations: the activations of the networks that the backend is tested on. A backend of
            finite differences leaves out ReLU, because of its kink.
    """

    backend: ClassVar[str]
    exactness: ClassVar[float] = AUTODIFF
    activations: ClassVar[tuple[str, ...]] = ("tanh", "softplus", "relu", "identity")

    @staticmethod
    def compile(function: Callable[..., Any]) -> Callable[..., Any]:
        """Compile a function of arrays as a user would; by default, return it unchanged."""
        return function

    @property
    def seam(self) -> Backend:
        """The tested backend."""
        return get_backend(self.backend)

    def to_array(self, value: Any) -> Any:
        """Convert a NumPy array to an array of the backend, of the same dtype."""
        return self.seam.asarray(value, lambda x: x)

    def assume_testable(self, case: Case) -> None:
        """Discard a drawn case unless the activation of its network is one of `activations`."""
        assume(case.network.activation in self.activations)

    def run(self, function: Callable[..., Any], *values: Any) -> Any:
        """Compile a function of arrays, call it on NumPy arrays, and return NumPy arrays."""
        return _to_numpy(self.seam, self.compile(function)(*map(self.to_array, values)))

    def build_model(
        self,
        network: TinyNetwork,
        directions: Iterable[np.ndarray] = (),
        t: Any = None,
        dtype: Any = np.float64,
    ) -> Callable[[Any], Any]:
        """Return a function of the backend's arrays that computes the network's logits.

        If `directions` [n parameters] and t [1 n] are given, the function uses the parameters
        W + sum_i t_i directions_i, where W are the parameters of `network`.
        """
        xp = self.seam.xp
        tangents = [network.with_parameters(direction) for direction in directions]

        def place(kind: str) -> list[Any]:
            placed = [self.to_array(np.atleast_2d(v).astype(dtype)) for v in getattr(network, kind)]
            for i, tangent in enumerate(tangents):
                placed = [
                    start + t[:, i : i + 1] * self.to_array(np.atleast_2d(change))
                    for start, change in zip(placed, getattr(tangent, kind), strict=True)
                ]
            return placed

        def activate(z: Any) -> Any:
            match network.activation:
                case "tanh":
                    return xp.tanh(z)
                case "relu":
                    return xp.maximum(z, xp.zeros_like(z))
                case "softplus":
                    return xp.logaddexp(xp.zeros_like(z), z)
                case _:
                    return z

        def compute_logits(x: Any) -> Any:
            weights, biases = place("weights"), place("biases")
            rows = xp.reshape(x, (-1, network.weights[0].shape[1]))
            for i, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
                rows = einsum(rows, weight, "b i, o i -> b o") + bias
                rows = rows if i == len(weights) - 1 else activate(rows)
            return rows

        return compute_logits

    def append_softmax(self, model: Callable[[Any], Any]) -> Callable[[Any], Any]:
        """Return a faulty model, whose outputs are the softmax of the logits of `model`."""

        def compute_probabilities(x: Any) -> Any:
            powers = self.seam.xp.exp(model(x))
            return powers / reduce(powers, "b k -> b 1", "sum")

        return compute_probabilities

    def find_slope(
        self, network: TinyNetwork, value: Callable[[Any], Any], direction: np.ndarray
    ) -> float:
        """Return the derivative of value(model) along one direction of the model's parameters."""
        return float(self.find_slopes(network, value, direction[None])[0])

    def find_slopes(
        self, network: TinyNetwork, value: Callable[[Any], Any], directions: np.ndarray
    ) -> np.ndarray:
        """Return the derivatives [n] of value(model) along directions [n parameters].

        `value` maps the model to a scalar.
        """

        def differentiate(t: Any) -> Any:
            def f(t: Any) -> Any:
                result = value(self.build_model(network, PARAMETER_STEP * directions, t))
                return self.seam.xp.reshape(result, (1, 1))

            _, pull = self.seam.vjp(f, t)
            return pull(self.seam.xp.ones_like(t[:, :1]))

        slopes: np.ndarray = self.run(differentiate, np.zeros((1, len(directions))))[0]
        return slopes / PARAMETER_STEP
