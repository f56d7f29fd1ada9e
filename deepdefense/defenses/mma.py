"""Max-margin adversarial training (Ding, Sharma, Lui, Huang, ICLR 2020)."""

from __future__ import annotations

from dataclasses import dataclass

from einops import rearrange

from deepdefense.attacks.common.balls import check_ball_order, project_ball
from deepdefense.attacks.ddn import ddn
from deepdefense.attacks.fmn import fmn
from deepdefense.defenses.mixed_cross_entropy import MixedCrossEntropy
from deepdefense.geometry.bounds import Bounds, freeze_bounds
from deepdefense.seam.choosing import backend_of
from deepdefense.seam.contract import Array, Model
from deepdefense.seam.validation import check_count, check_number

__all__ = ["MMA"]


@dataclass(frozen=True)
class MMA(MixedCrossEntropy):
    """alpha CE(x) + (1 - alpha) CE(x'), x' where the margin ends: at the boundary, or d_max away.

    A rightly classified example is trained at its nearest point of the boundary, which is how its
    margin grows (the envelope theorem), or on the sphere of radius d_max on the way there; a
    misclassified one as it is. The paper finds the point by an adaptive search along PGD's line;
    here it is DDN's for the 2-norm, and FMN's for the maximum norm.

    Args:
        alpha: the weight of the examples themselves; 1/3 in the paper.
        d_max: the margin that is large enough, in the units of x.
        steps: of the attack.
        p: order of the norm, 2 or inf.
        bounds: (low, high), the range of perturbed examples: numbers, or arrays of their shape.

    Source: Ding et al. (2020), "MMA training: direct input space margin maximization through
    adversarial training", algorithm 1.
    """

    alpha: float = 1 / 3
    d_max: float = 1.0
    steps: int = 10
    p: float = 2.0
    bounds: Bounds | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number("d_max", self.d_max, least=0)
        check_count("steps", self.steps, least=1)
        check_ball_order(self.p)
        freeze_bounds(self)

    def points(self, model: Model, x: Array, y: Array) -> tuple[Array, ...]:
        """Points of the boundary, or on the way there at distance d_max."""
        if self.p == 2:
            found = ddn(model, x, y, steps=self.steps, bounds=self.bounds)
        else:
            found = fmn(model, x, y, steps=self.steps, p=self.p, bounds=self.bounds)
        backend = backend_of(x)
        flat = rearrange(found.delta, "b ... -> b (...)")
        limited = project_ball(backend, flat, 0 * flat[:, 0] + self.d_max, self.p)
        return (x + backend.xp.reshape(limited, tuple(x.shape)),)
