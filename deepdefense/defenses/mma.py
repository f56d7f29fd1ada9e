"""Max-margin adversarial training (Ding, Sharma, Lui, Huang, ICLR 2020)."""

from __future__ import annotations

from dataclasses import dataclass

from einops import rearrange

from deepdefense.attacks.common.balls import project_ball
from deepdefense.attacks.ddn import ddn
from deepdefense.attacks.fmn import fmn
from deepdefense.defenses.attack_settings import BALL_NORM, BOUNDS, CLEAN_WEIGHT
from deepdefense.defenses.mixed_cross_entropy import MixedCrossEntropy
from deepdefense.geometry.bounds import Bounds
from deepdefense.seam.choosing import backend_of
from deepdefense.seam.contract import Array, Model
from deepdefense.seam.settings import document_settings, real_number, setting, whole_number

__all__ = ["MMA"]


@document_settings
@dataclass(frozen=True)
class MMA(MixedCrossEntropy):
    """Max-margin adversarial training: train at the nearest points of the decision boundary.

        loss = alpha CE(x) + (1 - alpha) CE(x')

    CE is the mean cross-entropy of a batch. x' depends on the example x:

    - If x is correctly classified, x' is the point of the decision boundary nearest to x.
    - If this point is further away from x than d_max, x' lies on the straight line from x to this
      point, at the distance d_max from x.
    - If x is misclassified, x' = x.

    Lowering the cross-entropy at x' increases the margin, which is the distance from x to the
    boundary. The attack that finds the nearest point is DDN for the 2-norm, and FMN for the maximum
    norm. The paper searches along PGD's perturbation instead.

    Source: Ding et al. (2020), "MMA training: direct input space margin maximization through
    adversarial training", algorithm 1.
    """

    alpha: float = setting(1 / 3, *CLEAN_WEIGHT)
    d_max: float = setting(1.0, "margin that is large enough, in the units of x", real_number(0))
    steps: int = setting(10, "steps of the attack", whole_number(1))
    p: float = setting(2.0, *BALL_NORM)
    bounds: Bounds | None = setting(None, *BOUNDS, unset="no bounds")

    def points(self, model: Model, x: Array, y: Array) -> tuple[Array, ...]:
        """Return x' (see the class) for each example; the attack approximates the nearest point."""
        if self.p == 2:
            perturbation = ddn(model, x, y, steps=self.steps, bounds=self.bounds)
        else:
            perturbation = fmn(model, x, y, steps=self.steps, p=self.p, bounds=self.bounds)
        backend = backend_of(x)
        flat = rearrange(perturbation.delta, "b ... -> b (...)")
        limited = project_ball(backend, flat, 0 * flat[:, 0] + self.d_max, self.p)
        return (x + backend.xp.reshape(limited, tuple(x.shape)),)
