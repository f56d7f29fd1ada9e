"""The base of adversarial training: the cross-entropy at the examples and at perturbed ones."""

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
    """alpha CE(x) + (1 - alpha) CE(x'); a subclass computes the points x' from x."""

    alpha: float = setting(0.5, *CLEAN_WEIGHT)

    def losses(
        self, backend: Backend, forward: Forward, model: Model, x: Array, y: Array, *points: Array
    ) -> Losses:
        """Return the weighted sum; the penalty is the weighted sum minus the first term's CE(x)."""
        clean = mean_cross_entropy(backend, forward(x), y)
        (point,) = points
        total = self.alpha * clean + (1 - self.alpha) * mean_cross_entropy(
            backend, forward(point), y
        )
        zero = backend.stop_gradient(clean) * 0
        return Losses(total, clean, total - clean, zero, zero)
