"""What the methods of adversarial training share: a cross-entropy at x, and one at other points."""

from __future__ import annotations

from dataclasses import dataclass

from deepdefense.defenses.objective import Objective, mean_cross_entropy
from deepdefense.seam.contract import Array, Backend, Forward, Model
from deepdefense.seam.training import Losses
from deepdefense.seam.validation import check_number, to_python_numbers

__all__ = ["MixedCrossEntropy"]


@dataclass(frozen=True)
class MixedCrossEntropy(Objective):
    """alpha CE(x) + (1 - alpha) CE(x'), with the points x' that a subclass makes of x.

    Args:
        alpha: the weight of the examples themselves, from 0 to less than 1.
    """

    alpha: float = 0.5

    def __post_init__(self) -> None:
        to_python_numbers(self)
        check_number("alpha", self.alpha, least=0, below=1)

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
