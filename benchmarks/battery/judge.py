"""Judge every network alike: accuracy on all test examples, distances by strong attacks."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from deepdefense.evaluation.accuracy import measure_accuracy
from deepdefense.evaluation.distances import measure_distances
from deepdefense.evaluation.statistics import (
    Values,
    compare_distances,
    finite_or_none,
    quantile,
    typical_distance,
)
from deepdefense.seam.training_contract import TrainingBackend

__all__ = ["ATTACK_STEPS", "DISTANCE_EXAMPLES", "Judge", "Judgement"]

ATTACK_STEPS = 100  # of DDN and of FMN
DISTANCE_EXAMPLES = 300  # the largest number of test examples whose distance is measured
BATCH = 500


@dataclass(frozen=True, eq=False)
class Judgement:
    """The accuracy on all test examples, and the distances of the first `DISTANCE_EXAMPLES`.

    A distance is the 2-norm of the smallest perturbation that DDN or FMN finds. It is 0 for a
    misclassified example, and inf if both attacks fail.
    """

    accuracy: float
    distances: Values

    @property
    def typical(self) -> float:
        """The median distance of correctly classified examples."""
        return typical_distance(self.distances)

    def as_dict(self) -> dict[str, Any]:
        """Return the accuracy and the median distance, or None if that is infinite."""
        return {
            "accuracy": self.accuracy,
            "distance": finite_or_none(quantile(self.distances, 0.5)),
        }


@dataclass(frozen=True, eq=False)
class Judge:
    """Test examples, and the range `bounds` of perturbed examples."""

    backend: TrainingBackend
    x: npt.NDArray[Any]  # [n ...]
    y: npt.NDArray[np.int64]  # [n]
    bounds: tuple[float, float] | None

    def judge(self, model: Any) -> Judgement:
        """Measure a network."""
        n = DISTANCE_EXAMPLES
        distances, _ = measure_distances(
            self.backend,
            model,
            self.x[:n],
            self.y[:n],
            bounds=self.bounds,
            steps=ATTACK_STEPS,
            batch_size=BATCH,
        )
        return Judgement(measure_accuracy(self.backend, model, self.x, self.y), distances)

    def compare(self, given: Judgement, model: Any) -> dict[str, Any]:
        """Measure a network, and return the measurements and the growth over the given network.

        `growth` is the ratio of the median distances. It is None if that is no finite number.
        `growth_interval` is its 95 % interval, by the bootstrap.
        """
        judgement = self.judge(model)
        comparison = compare_distances(given.distances, judgement.distances)
        return {
            **judgement.as_dict(),
            "growth": comparison.median_ratio,
            "growth_interval": comparison.interval,
        }

    def accuracy_floor(self, given: Judgement) -> float:
        """Return the accuracy of the given network minus one standard error."""
        a = given.accuracy
        return a - math.sqrt(a * (1 - a) / len(self.y))
