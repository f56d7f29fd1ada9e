"""A trial of training, to choose the number of CPU threads by measurement."""

from __future__ import annotations

from typing import Any

from deepdefense.defenses.deep_defense import DeepDefense
from deepdefense.evaluation.dataset import Dataset
from deepdefense.seam.threads import TRIAL_EXAMPLES, Work
from deepdefense.seam.training_contract import TrainingBackend
from deepdefense.training.epoch import take_step
from deepdefense.training.recipe import Recipe

__all__ = ["make_training_trial"]


def make_training_trial(
    backend: TrainingBackend, model: Any, data: Dataset, recipe: Recipe
) -> Work:
    """Return a function that takes one hardening step with a copy of the model.

    The step is the cheapest of Deep Defense, so that a trial is short. It has the operations of
    every other method: forward and backward passes, and gradients in the input.
    """
    trainer = recipe.make_trainer(backend, backend.copy(model))
    size = min(recipe.batch_size, TRIAL_EXAMPLES)
    x, y = data.x_train[:size], data.y_train[:size]

    def take_trial_step() -> None:
        with backend.fixed_seed(0):
            take_step(backend, trainer, DeepDefense.fast(), x, y, lr=0.0)

    return take_trial_step
