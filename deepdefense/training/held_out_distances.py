"""Measure the distances of held-out examples before and after hardening, for the verdict."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from deepdefense.defenses.objective import Objective
from deepdefense.errors import InputError
from deepdefense.evaluation.distances import measure_distances, name_distance_attacks
from deepdefense.evaluation.statistics import Values
from deepdefense.geometry.bounds import Bounds, make_box
from deepdefense.seam.progress import Watcher
from deepdefense.training.monitor import Monitor
from deepdefense.training.verdict import HardeningVerdict

__all__ = ["HeldOutDistances"]

# The largest number of held-out examples whose distance is measured. Each one costs about as much
# as a few hundred evaluations of the network, before hardening and again after it.
VERDICT_EXAMPLES = 300


@dataclass(frozen=True, eq=False)
class HeldOutDistances:
    """Measures networks by strong attacks, always on the same sample of held-out examples.

    `bounds` are those of the defence or, without them, those of the data's pixels. They are None if
    there are none, or if an example lies outside them.
    """

    monitor: Monitor
    rows: npt.NDArray[np.int64]
    p: float
    bounds: Bounds | None
    watcher: Watcher

    @classmethod
    def choose(
        cls, monitor: Monitor, model: Any, defense: Objective, watcher: Watcher
    ) -> HeldOutDistances:
        """Return an object that measures in the norm and within the bounds of the defence."""
        rows = np.sort(monitor.curve_rows[:VERDICT_EXAMPLES])
        bounds = getattr(defense, "bounds", None) or monitor.data.pixel_bounds()
        try:
            x = monitor.backend.asarray(monitor.data.x_test[rows], model)
            make_box(monitor.backend, x, bounds)
        except InputError:  # the defence accepts examples outside its bounds, the attacks do not
            bounds = None
        return cls(monitor, rows, float(getattr(defense, "p", 2)), bounds, watcher)

    def measure(self, model: Any, when: str) -> Values:
        """Return the distances [n]; `when` ("before", "after") labels the progress."""
        monitor, data = self.monitor, self.monitor.data
        self.watcher.begin(f"distances {when}", len(self.rows))
        distance, _ = measure_distances(
            monitor.backend,
            model,
            data.x_test[self.rows],
            data.y_test[self.rows],
            p=self.p,
            bounds=self.bounds,
            batch_size=100,
            progress=self.watcher.advance,
        )
        return distance

    def judge(
        self,
        before: Values,
        after: Values,
        correct_before: npt.NDArray[np.bool_],
        correct_after: npt.NDArray[np.bool_],
    ) -> HardeningVerdict:
        """Return the verdict on distances from `measure` and on the accuracies before and after."""
        return HardeningVerdict.compare(
            before,
            after,
            correct_before,
            correct_after,
            p=self.p,
            attacks=name_distance_attacks(self.p),
            bounded=self.bounds is not None,
        )
