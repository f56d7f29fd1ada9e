"""How the tests speak to a backend: through the seam alone, so they need nothing but its name."""

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

__all__ = ["AUTODIFF", "DIFFERENCE", "NESTED", "SINGLE", "Harness", "derivative"]

# One place for tolerances, each with the largest error seen over the property tests beside it.
AUTODIFF = 1e-9  # float64, autodiff against analytic: 2e-15
DIFFERENCE = 1e-6  # float64, values that rest on one finite difference: 3e-10
NESTED = 1e-5  # float64, a derivative of such values by another finite difference: 4e-7
SINGLE = 1e-4  # float32, perturbations: 3e-6

# Parameters move by this much per unit of t in `slope`, so that a backend of finite differences,
# whose steps are of order 1e-3, stays on one side of a network's kinks.
MOVE = 0.04


def derivative(value: Callable[[float], float], h: float = 3e-5) -> float:
    """value'(0) by central differences of fourth order."""
    near, far = (value(h) - value(-h)), (value(2 * h) - value(-2 * h))
    return (8 * near - far) / (12 * h)


def _numpy(backend: Backend, value: Any) -> Any:
    """Every array of a (named) tuple, or the one array, as NumPy's."""
    if not isinstance(value, tuple):
        return backend.to_numpy(value)
    parts = [_numpy(backend, part) for part in value]
    return type(value)(*parts) if hasattr(value, "_fields") else tuple(parts)


class Harness:
    """One backend, named in a subclass, as the tests use it.

    Attributes:
        backend: the name of its entry point.
        exactness: of its input gradients, in float64.
        activations: those it can be judged on; a difference across a kink is no derivative.
    """

    backend: ClassVar[str]
    exactness: ClassVar[float] = AUTODIFF
    activations: ClassVar[tuple[str, ...]] = ("tanh", "softplus", "relu", "identity")

    @staticmethod
    def compile(function: Callable[..., Any]) -> Callable[..., Any]:
        """What a user would compile a function of arrays with; here it stays as it is."""
        return function

    @property
    def seam(self) -> Backend:
        """The backend itself."""
        return get_backend(self.backend)

    def array(self, value: Any) -> Any:
        """NumPy's array as the backend's, of the same dtype."""
        return self.seam.asarray(value, lambda x: x)

    def accept(self, case: Case) -> None:
        """Judge no draw that this backend cannot be judged on."""
        assume(case.network.activation in self.activations)

    def run(self, function: Callable[..., Any], *values: Any) -> Any:
        """A function of arrays, compiled, at NumPy's values; its results as NumPy's."""
        return _numpy(self.seam, self.compile(function)(*map(self.array, values)))

    def model(
        self,
        network: TinyNetwork,
        directions: Iterable[np.ndarray] = (),
        t: Any = None,
        dtype: Any = np.float64,
    ) -> Callable[[Any], Any]:
        """The oracle's network in the backend's operations, its parameters moved by t [1 n]."""
        xp = self.seam.xp
        ways = [network.with_parameters(direction) for direction in directions]

        def place(kind: str) -> list[Any]:
            placed = [self.array(np.atleast_2d(v).astype(dtype)) for v in getattr(network, kind)]
            for i, way in enumerate(ways):
                placed = [
                    start + t[:, i : i + 1] * self.array(np.atleast_2d(move))
                    for start, move in zip(placed, getattr(way, kind), strict=True)
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

        def logits(x: Any) -> Any:
            weights, biases = place("weights"), place("biases")
            rows = xp.reshape(x, (-1, network.weights[0].shape[1]))
            for i, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
                rows = einsum(rows, weight, "b i, o i -> b o") + bias
                rows = rows if i == len(weights) - 1 else activate(rows)
            return rows

        return logits

    def softmax(self, model: Callable[[Any], Any]) -> Callable[[Any], Any]:
        """The model with a softmax behind its logits, which it should not have."""

        def probabilities(x: Any) -> Any:
            powers = self.seam.xp.exp(model(x))
            return powers / reduce(powers, "b k -> b 1", "sum")

        return probabilities

    def slope(
        self, network: TinyNetwork, value: Callable[[Any], Any], direction: np.ndarray
    ) -> float:
        """The derivative of a scalar function of the model along a direction of its parameters."""
        return float(self.slopes(network, value, direction[None])[0])

    def slopes(
        self, network: TinyNetwork, value: Callable[[Any], Any], directions: np.ndarray
    ) -> np.ndarray:
        """The derivatives along several directions [n parameters], compiled once: [n].

        They are the backend's own `vjp`, once more around the whole.
        """

        def gradient(t: Any) -> Any:
            def f(t: Any) -> Any:
                found = value(self.model(network, MOVE * directions, t))
                return self.seam.xp.reshape(found, (1, 1))

            _, pull = self.seam.vjp(f, t)
            return pull(self.seam.xp.ones_like(t[:, :1]))

        found: np.ndarray = self.run(gradient, np.zeros((1, len(directions))))[0]
        return found / MOVE
