"""Hypothesis strategies: small networks in general position, inputs, labels and settings."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple, cast

import numpy as np
from hypothesis import HealthCheck, settings
from hypothesis import given as hypothesis_given
from hypothesis import strategies as st

from deepdefense_numpy.networks import TinyNetwork

__all__ = ["ORDERS", "Case", "cases", "given"]

ORDERS = (1.0, 1.5, 2.0, 3.0, math.inf)


def given(*strategies: Any) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Apply Hypothesis's `given` without a deadline, and without two of its health checks.

    These checks and the deadline fail for tests that several classes inherit, or for frameworks
    that compile slowly.
    """

    def decorate(test: Callable[..., None]) -> Callable[..., None]:
        suppressed = [HealthCheck.differing_executors, HealthCheck.too_slow]
        patient: Any = settings(deadline=None, suppress_health_check=suppressed)
        decorated: Callable[..., None] = patient(cast(Any, hypothesis_given)(*strategies)(test))
        return decorated

    return decorate


class Case(NamedTuple):
    """A drawn test case: a network, examples x [b ...] with labels y [b], and settings.

    The labels are random, so that the network misclassifies some of the examples.
    """

    network: TinyNetwork
    x: np.ndarray
    y: np.ndarray
    p: float
    candidates: int
    rng: np.random.Generator

    @property
    def predicted(self) -> np.ndarray:
        """The classes [b] that the network predicts."""
        predictions: np.ndarray = self.network(self.x).argmax(1)
        return predictions

    def draw_direction(self) -> np.ndarray:
        """Draw a random direction [parameters] in the space of the network's parameters."""
        return self.rng.normal(size=self.network.parameters().shape)


@st.composite
def cases(
    draw: Any,
    activations: tuple[str, ...] = ("tanh", "softplus", "relu"),
    orders: tuple[float, ...] = ORDERS,
    depth: tuple[int, int] = (0, 2),
    classes: tuple[int, int] = (2, 5),
) -> Case:
    """Draw a test case: a network, examples, labels and settings.

    Weights and inputs are random numbers from a drawn seed, so no example is equally far from two
    boundaries, and none lies on a kink. There are few shapes, because a compiler compiles every
    function again for each shape.
    """
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1), label="seed"))
    shape = draw(st.sampled_from([(2,), (1, 2, 3)]), label="shape")
    hidden = [5] * draw(st.integers(*depth), label="depth")
    k = draw(st.sampled_from([k for k in (2, 3, 5) if classes[0] <= k <= classes[1]]), label="k")
    batch = draw(st.sampled_from([1, 3]), label="batch")
    activation = draw(st.sampled_from(activations), label="activation")
    network = TinyNetwork.draw(rng, [math.prod(shape), *hidden, k], activation)
    return Case(
        network=network,
        x=rng.normal(size=(batch, *shape)),
        y=rng.integers(0, k, batch),
        p=draw(st.sampled_from(orders), label="p"),
        candidates=draw(st.sampled_from([2, 3, 6]), label="candidates"),
        rng=rng,
    )
