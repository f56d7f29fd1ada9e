"""Per-epoch evaluation, on the same examples each time."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from deepdefense.errors import InputError
from deepdefense.evaluation.dataset import Dataset
from deepdefense.evaluation.rho import measure_rho
from deepdefense.evaluation.statistics import is_correct
from deepdefense.seam.training import TrainingBackend

__all__ = ["Monitor"]

# Enough for a curve: the standard error of a mean rho is then about 2 % of it.
CURVE_EXAMPLES, GUARD_EXAMPLES = 1000, 2000


@dataclass(frozen=True, eq=False)
class Monitor:
    """Per-epoch evaluation: which examples it uses, and the measurements.

    `training_rows` are the training examples to train on. `guard_rows` are the training examples
    on which the guard judges an epoch, so that held-out data decide nothing: those set aside, or
    some of `training_rows` if none are. `curve_rows` are the held-out examples whose mean rho_2
    is reported for each epoch.
    """

    backend: TrainingBackend
    data: Dataset
    training_rows: npt.NDArray[np.int64]
    guard_rows: npt.NDArray[np.int64]
    curve_rows: npt.NDArray[np.int64]
    attack: Mapping[str, Any]

    @classmethod
    def draw(
        cls,
        backend: TrainingBackend,
        data: Dataset,
        seed: int,
        attack: Mapping[str, Any],
        aside: float = 0.0,
    ) -> Monitor:
        """Choose the examples, by the seed, with that share of the training set aside."""
        random = np.random.default_rng((seed, 1))
        order = random.permutation(len(data.x_train))
        count = math.ceil(aside * len(order))
        if count == len(order):
            raise InputError(
                f"validation={aside:g} sets all {count} training examples aside, and leaves none "
                "to train on: lower it"
            )
        return cls(
            backend,
            data,
            np.sort(order[count:]),
            order[: count or GUARD_EXAMPLES],
            random.permutation(len(data.x_test))[:CURVE_EXAMPLES],
            attack,
        )

    def measure_accuracy(self, model: Any, x: Any, y: Any, batch_size: int = 500) -> float:
        """The share of examples [n] that the model gets right."""
        count = 0
        with self.backend.inference(model) as f:
            for start in range(0, len(x), batch_size):
                batch = self.backend.asarray(x[start : start + batch_size], model)
                logits = self.backend.to_numpy(self.backend.forward(f, batch))
                count += int(is_correct(logits, y[start : start + batch_size]).sum())
        return count / len(x)

    def select_training_data(self) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
        """The examples to train on, and their labels."""
        x, y = self.data.x_train, self.data.y_train
        whole = len(self.training_rows) == len(x)
        return (x, y) if whole else (x[self.training_rows], y[self.training_rows])

    def measure_guard_accuracy(self, model: Any) -> float:
        """Accuracy on the watched training examples."""
        rows = self.guard_rows
        return self.measure_accuracy(model, self.data.x_train[rows], self.data.y_train[rows])

    def measure_guard_rho(self, model: Any) -> float:
        """The mean rho_2 of the first of the watched training examples."""
        rows = self.guard_rows[:CURVE_EXAMPLES]
        return self._measure_rho(model, self.data.x_train[rows], self.data.y_train[rows])

    def measure_held_out(self, model: Any, *, with_rho: bool) -> tuple[float, float | None]:
        """Accuracy on the test set, and rho_2 on the sample."""
        x, y = self.data.x_test, self.data.y_test
        accuracy = self.measure_accuracy(model, x, y)
        if not with_rho:
            return accuracy, None
        return accuracy, self._measure_rho(model, x[self.curve_rows], y[self.curve_rows])

    def _measure_rho(self, model: Any, x: Any, y: Any) -> float:
        return float(measure_rho(model, x, y, backend=self.backend, **self.attack).rho.mean())
