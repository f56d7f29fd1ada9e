"""What the methods of adversarial training share: a cross-entropy at x, and one at other points."""

from __future__ import annotations

from dataclasses import dataclass

from deepdefense.defenses.attack_settings import CLEAN_WEIGHT
from deepdefense.defenses.objective import Objective, mean_cross_entropy
from deepdefense.seam.contract import Array, Backend, Forward, Model
from deepdefense.seam.settings import document_settings, setting
from deepdefense.seam.training import Losses

__all__ = ["MixedCrossEntropy"]


@document_settings
@dataclass(frozen=True)
class MixedCrossEntropy(Objective):
    """alpha CE(x) + (1 - alpha) CE(x'), with the points x' that a subclass makes of x."""

    alpha: float = setting(0.5, *CLEAN_WEIGHT)

    def losses(
        self, backend: Backend, forward: Forward, model: Model, x: Array, y: Array, *points: Array
    ) -> Losses:
        """The two cross-entropies; the penalty is what the points add to that of the examples."""
        clean = mean_cross_entropy(backend, forward(x), y)
        (point,) = points
        total = self.alpha * clean + (1 - self.alpha) * mean_cross_entropy(
            backend, forward(point), y
        )
        zero = backend.stop_gradient(clean) * 0
        return Losses(total, clean, total - clean, zero, zero)
