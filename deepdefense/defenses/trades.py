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
from deepdefense.seam.training_contract import Losses

__all__ = ["TRADES"]


def mean_kl_divergence(backend: Backend, clean: Array, other: Array) -> Array:
    """Return the batch mean of KL(softmax(clean) || softmax(other)): [b k], [b k] -> a scalar."""

    def log_softmax(logits: Array) -> Array:
        xp = backend.xp
        shifted = logits - backend.stop_gradient(reduce(logits, "b k -> b 1", "max"))
        return shifted - xp.log(reduce(xp.exp(shifted), "b k -> b 1", "sum"))

    log_p, log_q = log_softmax(clean), log_softmax(other)
    per_example = einsum(backend.xp.exp(log_p), log_p - log_q, "b k, b k -> b")
    return reduce(per_example, "b ->", "mean")


@document_settings
@dataclass(frozen=True)
class TRADES(Objective):
    """TRADES: cross-entropy, and a penalty on predictions that change within the distance eps.

        loss = CE(x) + beta KL(f(x) || f(x')),    ||x' - x||_p <= eps

    f returns class probabilities, and KL is their Kullback-Leibler divergence, averaged over the
    batch. The attack `pgd` finds x' by moving away from the class that the network predicts for x.
    The paper chooses x' to maximise the divergence, whose gradient vanishes where softmax
    saturates.

    Source: Zhang et al. (2019), "Theoretically principled trade-off between robustness and
    accuracy", algorithm 1.
    """

    beta: float = setting(6.0, "weight of the divergence, 1 / lambda in the paper", real_number(0))
    eps: float = setting(0.1, *BALL_RADIUS)
    steps: int = setting(10, *DESCENT_STEPS)
    p: float = setting(math.inf, *BALL_NORM)
    bounds: Bounds | None = setting(None, *BOUNDS, unset="no bounds")

    def points(self, model: Model, x: Array, y: Array) -> tuple[Array, ...]:
        """Return the last points x' of PGD; if PGD fails, x' has the predicted class of x."""
        perturbation = pgd(model, x, eps=self.eps, steps=self.steps, p=self.p, bounds=self.bounds)
        return (perturbation.x,)

    def losses(
        self, backend: Backend, forward: Forward, model: Model, x: Array, y: Array, *points: Array
    ) -> Losses:
        """Return the loss terms, with beta KL(f(x) || f(x')) as `penalty`."""
        logits, (point,) = forward(x), points
        entropy = mean_cross_entropy(backend, logits, y)
        penalty = self.beta * mean_kl_divergence(backend, logits, forward(point))
        zero = backend.stop_gradient(entropy) * 0
        return Losses(entropy + penalty, entropy, penalty, zero, zero)
