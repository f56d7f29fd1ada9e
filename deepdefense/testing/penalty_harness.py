"""The settings, helpers and base class that all tests of the penalty share."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from einops import reduce
from hypothesis import assume

from deepdefense.defenses.deep_defense import DeepDefense, Terms
from deepdefense.testing.harness import Harness
from deepdefense.testing.strategies import Case
from deepdefense_numpy import oracle
from deepdefense_numpy.networks import TinyNetwork

__all__ = [
    "EDGE_DEFENSES",
    "SMOOTH_ACTIVATIONS",
    "TESTED_DEFENSE",
    "PenaltyHarness",
    "assume_smooth",
    "make_defense",
    "make_oracle_options",
]

SMOOTH_ACTIVATIONS = ("tanh", "softplus")
# lam, c and d are moderate, so that all terms of the penalty are of order 1.
TESTED_DEFENSE = DeepDefense(lam=2.0, c=1.5, d=1.0, steps=3)
EDGE_DEFENSES = [
    pytest.param(defense, id=f"{defense.gradient}-{defense.p:g}")
    for defense in (
        replace(TESTED_DEFENSE, p=1.0),
        replace(TESTED_DEFENSE, p=2.0),
        replace(TESTED_DEFENSE, p=math.inf, gradient="implicit"),
        replace(TESTED_DEFENSE, p=1.5, gradient="chord", steps=1),
        replace(TESTED_DEFENSE, p=math.inf, gradient="chord"),
    )
]


def make_oracle_options(defense: DeepDefense) -> oracle.Options:
    """Convert the settings of a defence to options of the oracle."""
    return oracle.Options(
        lam=defense.lam,
        c=defense.c,
        d=defense.d,
        p=defense.p,
        steps=defense.steps,
        overshoot=defense.overshoot,
        candidates=defense.candidates,
    )


def make_defense(case: Case, **changes: Any) -> DeepDefense:
    """Return `TESTED_DEFENSE` with p and candidates of the drawn case, and with `changes`."""
    return replace(TESTED_DEFENSE, p=case.p, candidates=case.candidates, **changes)


def assume_smooth(case: Case, defense: DeepDefense) -> None:
    """Discard a drawn case unless the penalty is smooth near the network's weights.

    The oracle's search must make the same discrete decisions for slightly changed weights. Also
    discard cases with rho of 5 or more, because exp(-c * rho) is then too small to test.
    """
    start = case.network.parameters()
    nudge = case.rng.normal(size=start.shape)
    networks = [case.network.with_parameters(start + step * nudge) for step in (0, 1e-4, -1e-4)]
    for x, y in zip(case.x, case.y, strict=True):
        paths = set()
        for network in networks:
            path, shift = _trace_search(case, defense, network, x, int(y))
            paths.add(path)
            assume(oracle.rho((1 + defense.overshoot) * shift, x, case.p) < 5)
        assume(len(paths) == 1)


def _trace_search(
    case: Case, defense: DeepDefense, network: TinyNetwork, x: np.ndarray, y: int
) -> tuple[Any, np.ndarray]:
    """Run the oracle's search; return its discrete decisions and its perturbation.

    The decisions are the base class and the target class of each step and, unless the gradient is
    the chord gradient, the success. The perturbation does not include the overshoot.
    """
    keywords: Any = {"p": case.p, "steps": defense.steps}
    if defense.gradient == "chord":
        keywords["bounds"] = defense.bounds
        landing = oracle.approach_boundary(network, x, y, candidates=case.candidates, **keywords)
        return landing.path, landing.shift
    keywords["overshoot"] = defense.overshoot
    walk = (
        oracle.deepfool(network, x, y, candidates=case.candidates, **keywords)
        if int(network(x[None]).argmax()) == y
        else oracle.reach_label(network, x, y, **keywords)
    )
    return (walk.path, walk.success), walk.shift


class PenaltyHarness(Harness):
    """A harness that computes penalties, and their derivatives with respect to the weights."""

    def assume_smooth(self, case: Case, defense: DeepDefense) -> None:
        """Discard a drawn case unless the penalty is smooth near the network's weights.

        Also discard it if the backend is not tested on the network's activation.
        """
        self.assume_testable(case)
        assume_smooth(case, defense)

    def compute_penalties(
        self, defense: DeepDefense, network: TinyNetwork, x: np.ndarray, y: np.ndarray
    ) -> np.ndarray:
        """Return the penalties [b] of the examples."""
        model = self.build_model(network)
        result: np.ndarray = self.run(lambda x, y: defense(model, x, y), x, y)
        return result

    def compute_terms(
        self, defense: DeepDefense, network: TinyNetwork, x: np.ndarray, y: np.ndarray
    ) -> Terms:
        """Return the penalties of the examples with the intermediate results, such as rho."""
        model = self.build_model(network)
        result: Terms = self.run(lambda x, y: defense.terms(model, x, y), x, y)
        return result

    def find_penalty_slope(
        self,
        defense: DeepDefense,
        network: TinyNetwork,
        x: np.ndarray,
        y: np.ndarray,
        direction: np.ndarray,
    ) -> float:
        """Return the derivative of the summed penalty along one direction of the weights."""
        return float(self.find_penalty_slopes(defense, network, x, y, direction[None])[0])

    def find_penalty_slopes(
        self,
        defense: DeepDefense,
        network: TinyNetwork,
        x: np.ndarray,
        y: np.ndarray,
        directions: np.ndarray,
    ) -> np.ndarray:
        """Return the derivatives [n] of the summed penalty along directions [n parameters]."""

        def total(model: Any) -> Any:
            return reduce(defense(model, self.to_array(x), self.to_array(y)), "b ->", "sum")

        return self.find_slopes(network, total, directions)
