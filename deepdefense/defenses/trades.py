"""TRADES (Zhang, Yu, Jiao, Xing, El Ghaoui, Jordan, ICML 2019)."""

from __future__ import annotations

import math
from dataclasses import dataclass

from einops import einsum, reduce

from deepdefense.attacks.pgd import pgd
from deepdefense.defenses.attack_settings import BALL_NORM, BALL_RADIUS, BOUNDS, DESCENT_STEPS
from deepdefense.defenses.objective import Objective, mean_cross_entropy
from deepdefense.geometry.bounds import Bounds
from deepdefense.seam.contract import Array, Backend, Forward, Model
from deepdefense.seam.settings import document_settings, real_number, setting
from deepdefense.seam.training import Losses

__all__ = ["TRADES"]


def mean_kl_divergence(backend: Backend, clean: Array, other: Array) -> Array:
    """KL(softmax(clean) || softmax(other)) of logits [b k], mean over the batch: a scalar."""

    def logarithm(logits: Array) -> Array:
        xp = backend.xp
        shifted = logits - backend.stop_gradient(reduce(logits, "b k -> b 1", "max"))
        return shifted - xp.log(reduce(xp.exp(shifted), "b k -> b 1", "sum"))

    log_p, log_q = logarithm(clean), logarithm(other)
    per_example = einsum(backend.xp.exp(log_p), log_p - log_q, "b k, b k -> b")
    return reduce(per_example, "b ->", "mean")


@document_settings
@dataclass(frozen=True)
class TRADES(Objective):
    """CE(x) + beta KL(f(x) || f(x')), x' within eps of x.

    x' is found by projected gradient descent from a point drawn at random, away from the class that
    the network predicts: up to the choice of this loss for the divergence itself, whose gradient
    vanishes where softmax is sure, the inner problem of the paper.

    Source: Zhang et al. (2019), "Theoretically principled trade-off between robustness and
    accuracy", algorithm 1.
    """

    beta: float = setting(6.0, "weight of the divergence, 1 / lambda in the paper", real_number(0))
    eps: float = setting(0.1, *BALL_RADIUS)
    steps: int = setting(10, *DESCENT_STEPS)
    p: float = setting(math.inf, *BALL_NORM)
    bounds: Bounds | None = setting(None, *BOUNDS, unset="no bounds")

    def points(self, model: Model, x: Array, y: Array) -> tuple[Array, ...]:
        """Points of the ball whose prediction differs from that of x, or on the way there."""
        found = pgd(model, x, eps=self.eps, steps=self.steps, p=self.p, bounds=self.bounds)
        return (found.x,)

    def losses(
        self, backend: Backend, forward: Forward, model: Model, x: Array, y: Array, *points: Array
    ) -> Losses:
        """The cross-entropy, and beta times the divergence."""
        logits, (point,) = forward(x), points
        entropy = mean_cross_entropy(backend, logits, y)
        penalty = self.beta * mean_kl_divergence(backend, logits, forward(point))
        zero = backend.stop_gradient(entropy) * 0
        return Losses(entropy + penalty, entropy, penalty, zero, zero)
