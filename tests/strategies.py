"""What Hypothesis draws: small networks in general position, inputs, labels, settings."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from hypothesis import strategies as st

from deepdefense_numpy.networks import TinyNetwork

ORDERS = (1.0, 1.5, 2.0, 3.0, math.inf)


class Case(NamedTuple):
    """A network, and examples [b ...] with labels [b], right and wrong ones among them."""

    network: TinyNetwork
    x: np.ndarray
    y: np.ndarray
    p: float
    candidates: int
    rng: np.random.Generator

    @property
    def predicted(self) -> np.ndarray:
        return self.network(self.x).argmax(1)

    def direction(self) -> np.ndarray:
        """A random direction in the space of parameters."""
        return self.rng.normal(size=self.network.parameters().shape)


@st.composite
def cases(
    draw: Any,
    activations: tuple[str, ...] = ("tanh", "softplus", "relu"),
    orders: tuple[float, ...] = ORDERS,
    depth: tuple[int, int] = (0, 2),
    classes: tuple[int, int] = (2, 5),
) -> Case:
    """Shapes and settings are Hypothesis's to choose and shrink; values come from a seed.

    Seeded values are in general position: no two classes at one distance, no example on a kink.
    """
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1), label="seed"))
    shape = draw(st.sampled_from([(2,), (3,), (5,), (1, 2, 2), (2, 3)]), label="shape")
    hidden = [draw(st.integers(3, 6)) for _ in range(draw(st.integers(*depth), label="depth"))]
    k = draw(st.integers(*classes), label="classes")
    batch = draw(st.integers(1, 4), label="batch")
    activation = draw(st.sampled_from(activations), label="activation")
    network = TinyNetwork.draw(rng, [math.prod(shape), *hidden, k], activation)
    return Case(
        network=network,
        x=rng.normal(size=(batch, *shape)),
        y=rng.integers(0, k, batch),
        p=draw(st.sampled_from(orders), label="p"),
        candidates=draw(st.integers(2, 6), label="candidates"),
        rng=rng,
    )
