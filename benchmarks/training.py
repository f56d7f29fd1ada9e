"""Train a network without measuring it on the way."""

from __future__ import annotations

from typing import Any

import numpy.typing as npt

from deepdefense.defenses.objective import Objective
from deepdefense.seam.training_contract import TrainingBackend
from deepdefense.training.epoch import train_epoch
from deepdefense.training.recipe import Recipe

__all__ = ["train_network"]


def train_network(
    backend: TrainingBackend,
    model: Any,
    x: npt.NDArray[Any],
    y: npt.NDArray[Any],
    *,
    recipe: Recipe,
    objective: Objective,
) -> Any:
    """Train a copy of the model on the examples x [n ...] with labels y [n], and return it."""
    trainer = recipe.make_trainer(backend, backend.copy(model))
    for period in range(recipe.periods):
        train_epoch(backend, trainer, x, y, recipe=recipe, objective=objective, epoch=period)
    return trainer.model
