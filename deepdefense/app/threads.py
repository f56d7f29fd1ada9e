"""Choose the number of CPU threads for a run, and keep it if the run is resumed."""

from __future__ import annotations

import json
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from deepdefense.app.run_folder import THREADS_FILE, RunFolder
from deepdefense.evaluation.dataset import Dataset
from deepdefense.seam.progress import Watcher
from deepdefense.seam.threads import fit_threads
from deepdefense.seam.training_contract import TrainingBackend
from deepdefense.training.recipe import Recipe
from deepdefense.training.trials import make_training_trial

__all__ = ["RunThreads", "fit_training_threads"]


@dataclass(frozen=True)
class RunThreads:
    """The file in a run folder that holds the number of threads until the run is complete.

    It implements `deepdefense.seam.threads.ThreadRecord`.
    """

    run: RunFolder

    def load(self) -> int | None:
        """Return the number of threads with which the run began, or None if it is not saved."""
        path = self.run.path / THREADS_FILE
        return int(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else None

    def save(self, count: int) -> None:
        """Save the number of threads."""
        self.run.write(THREADS_FILE, json.dumps(count))


def fit_training_threads(
    backend: TrainingBackend,
    model: Any,
    data: Dataset,
    recipe: Recipe,
    *,
    run: RunFolder | None,
    watcher: Watcher,
) -> AbstractContextManager[None]:
    """Open a context with the number of CPU threads that suits training the model on the data."""
    return fit_threads(
        backend,
        model,
        backend.asarray(data.x_train[:1], model),
        lambda: make_training_trial(backend, model, data, recipe),
        record=None if run is None else RunThreads(run),
        watcher=watcher,
    )
