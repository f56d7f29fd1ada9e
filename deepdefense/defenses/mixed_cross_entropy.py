"""The common base class of the adversarial training objectives."""

from __future__ import annotations

from dataclasses import dataclass

from deepdefense.defenses.attack_settings import CLEAN_WEIGHT
from deepdefense.defenses.objective import Objective, mean_cross_entropy
from deepdefense.seam.contract import Array, Backend, Forward, Model
from deepdefense.seam.settings import document_settings, setting
from deepdefense.seam.training_contract import Losses

__all__ = ["MixedCrossEntropy"]


@document_settings
@dataclass(frozen=True)
class MixedCrossEntropy(Objective):
    """The loss of adversarial training: a weighted mean over clean and perturbed examples.

        loss = alpha CE(x) + (1 - alpha) CE(x')

    CE is the mean cross-entropy of a batch. A subclass implements `points`, which returns the
    perturbed examples x'.
    """

    alpha: float = setting(0.5, *CLEAN_WEIGHT)

    def losses(
        self, backend: Backend, forward: Forward, model: Model, x: Array, y: Array, *points: Array
    ) -> Losses:
        """Return the loss terms, with alpha CE(x) + (1 - alpha) CE(x') as `total`.

        `cross_entropy` is CE(x), and `penalty` is `total` minus `cross_entropy`. `points` holds
        one array, the perturbed examples x'.
        """
        clean = mean_cross_entropy(backend, forward(x), y)
        (point,) = points
        total = self.alpha * clean + (1 - self.alpha) * mean_cross_entropy(
            backend, forward(point), y
        )
        zero = backend.stop_gradient(clean) * 0
        return Losses(total, clean, total - clean, zero, zero)
