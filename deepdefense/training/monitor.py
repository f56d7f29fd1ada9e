"""Evaluate the network after each epoch, always on the same examples."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from deepdefense.errors import InputError
from deepdefense.evaluation.accuracy import measure_accuracy
from deepdefense.evaluation.dataset import Dataset
from deepdefense.evaluation.rho_protocol import measure_rho
from deepdefense.evaluation.subject import pick_evenly
from deepdefense.seam.training_contract import TrainingBackend

__all__ = ["Monitor"]

# The largest number of examples on which mean rho_2 is measured after each epoch. With this number,
# the standard error is about 2 % of the mean.
CURVE_EXAMPLES = 1000

# The largest number of training examples on which the guard measures accuracy if no training
# examples are set aside.
GUARD_EXAMPLES = 2000


@dataclass(frozen=True, eq=False)
class Monitor:
    """The examples that `run_training` trains and evaluates on, and methods that evaluate on them.

    The fields ending in `_rows` are row numbers in `data`:

    - `training_rows`: the training examples that the network is trained on.
    - `guard_rows`: the training examples on which the guard judges an epoch. They are the examples
      set aside or, if none are set aside, a sample of `training_rows`.
    - `curve_rows`: the held-out examples whose mean rho_2 is recorded after each epoch.

    `attack` has the settings of DeepFool, whose perturbations D give rho_2 = ||D||_2 / ||x||_2.
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
        validation: float = 0.0,
    ) -> Monitor:
        """Return a monitor with examples chosen at random from `data`, as determined by the seed.

        `validation` is the share of the training examples to set aside.
        """
        random = np.random.default_rng((seed, 1))
        order = random.permutation(len(data.x_train))
        set_aside = math.ceil(validation * len(order))
        if set_aside == len(order):
            raise InputError(
                f"validation={validation:g} sets all {set_aside} training examples aside, and "
                "leaves none to train on: lower it"
            )
        return cls(
            backend,
            data,
            np.sort(order[set_aside:]),
            order[: set_aside or GUARD_EXAMPLES],
            random.permutation(len(data.x_test))[:CURVE_EXAMPLES],
            attack,
        )

    def select_training_data(self) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
        """Return the examples [n ...] to train on, and their labels [n]."""
        x, y = self.data.x_train, self.data.y_train
        if len(self.training_rows) == len(x):
            return x, y  # avoid a copy of all examples
        return x[self.training_rows], y[self.training_rows]

    def measure_guard_accuracy(self, model: Any) -> float:
        """Return the accuracy of the model on all of `guard_rows`."""
        rows = self.guard_rows
        return measure_accuracy(
            self.backend, model, self.data.x_train[rows], self.data.y_train[rows]
        )

    def measure_training_accuracy(self, model: Any) -> float:
        """Return the accuracy of the model on at most `GUARD_EXAMPLES` of the `training_rows`."""
        x, y, rows = self.data.x_train, self.data.y_train, self.training_rows
        rows = pick_evenly(rows, GUARD_EXAMPLES)
        return measure_accuracy(self.backend, model, x[rows], y[rows])

    def measure_guard_rho(self, model: Any) -> float:
        """Return the mean rho_2 of the model on at most `CURVE_EXAMPLES` of the `guard_rows`."""
        rows = self.guard_rows[:CURVE_EXAMPLES]
        return self._measure_rho(model, self.data.x_train[rows], self.data.y_train[rows])

    def measure_held_out(self, model: Any, *, with_rho: bool) -> tuple[float, float | None]:
        """Return the accuracy on all held-out examples, and the mean rho_2 on `curve_rows`.

        Without `with_rho`, rho_2 is not measured and None is returned in its place.
        """
        x, y, rows = self.data.x_test, self.data.y_test, self.curve_rows
        accuracy = measure_accuracy(self.backend, model, x, y)
        return accuracy, self._measure_rho(model, x[rows], y[rows]) if with_rho else None

    def _measure_rho(self, model: Any, x: Any, y: Any) -> float:
        """Return the mean rho_2 of the model on the examples x [n ...] with labels y [n]."""
        return float(measure_rho(model, x, y, backend=self.backend, **self.attack).rho.mean())
