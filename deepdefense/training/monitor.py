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
from deepdefense.evaluation.rho import measure
from deepdefense.evaluation.statistics import right
from deepdefense.seam.training import TrainingBackend

__all__ = ["Assessor"]

# Enough for a curve: the standard error of a mean rho is then about 2 % of it.
CURVE_EXAMPLES, WATCHED_EXAMPLES = 1000, 2000


@dataclass(frozen=True, eq=False)
class Assessor:
    """What is looked at after every epoch, on the same examples each time.

    `trained` are the training examples to train on. `watched` ones tell whether training has lost
    too much accuracy, so that held-out data decide nothing: some of the trained ones, or all that
    are set aside. `curve` held-out ones give rho_2.
    """

    backend: TrainingBackend
    data: Dataset
    trained: npt.NDArray[np.int64]
    watched: npt.NDArray[np.int64]
    curve: npt.NDArray[np.int64]
    attack: Mapping[str, Any]

    @classmethod
    def draw(
        cls,
        backend: TrainingBackend,
        data: Dataset,
        seed: int,
        attack: Mapping[str, Any],
        aside: float = 0.0,
    ) -> Assessor:
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
            order[: count or WATCHED_EXAMPLES],
            random.permutation(len(data.x_test))[:CURVE_EXAMPLES],
            attack,
        )

    def accuracy(self, model: Any, x: Any, y: Any, batch_size: int = 500) -> float:
        """The share of examples [n] that the model gets right."""
        count = 0
        with self.backend.inference(model) as f:
            for start in range(0, len(x), batch_size):
                batch = self.backend.asarray(x[start : start + batch_size], model)
                logits = self.backend.to_numpy(self.backend.forward(f, batch))
                count += int(right(logits, y[start : start + batch_size]).sum())
        return count / len(x)

    def training(self) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
        """The examples to train on, and their labels."""
        x, y = self.data.x_train, self.data.y_train
        whole = len(self.trained) == len(x)
        return (x, y) if whole else (x[self.trained], y[self.trained])

    def watched_accuracy(self, model: Any) -> float:
        """Accuracy on the watched training examples."""
        rows = self.watched
        return self.accuracy(model, self.data.x_train[rows], self.data.y_train[rows])

    def watched_rho(self, model: Any) -> float:
        """The mean rho_2 of the first of the watched training examples."""
        rows = self.watched[:CURVE_EXAMPLES]
        return self._rho(model, self.data.x_train[rows], self.data.y_train[rows])

    def held_out(self, model: Any, *, attacked: bool) -> tuple[float, float | None]:
        """Accuracy on the test set, and rho_2 on the sample."""
        x, y = self.data.x_test, self.data.y_test
        accuracy = self.accuracy(model, x, y)
        return accuracy, self._rho(model, x[self.curve], y[self.curve]) if attacked else None

    def _rho(self, model: Any, x: Any, y: Any) -> float:
        return float(measure(model, x, y, backend=self.backend, **self.attack).rho.mean())
