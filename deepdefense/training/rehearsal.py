"""Rehearse hardening on examples set aside, to find how strong the penalty may become.

A trained network knows its own training examples by heart: its accuracy on them, and the accuracy
of networks that are fine-tuned from it, says nothing about fresh examples. The rehearsal therefore
trains a network of the same architecture from shuffled weights, without the examples that are set
aside, and hardens it stage by stage. The same stages then harden the given network.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from deepdefense.defenses.deep_defense import DeepDefense
from deepdefense.defenses.objective import Objective
from deepdefense.seam.progress import QuietWatcher, Watcher
from deepdefense.seam.training_contract import Trainer, TrainingBackend
from deepdefense.training.folds import climb, make_fold, split_into_folds
from deepdefense.training.loop import run_training
from deepdefense.training.monitor import Monitor
from deepdefense.training.parameters import shuffle_parameters
from deepdefense.training.recipe import Recipe
from deepdefense.training.stages import Stage, Strength

__all__ = ["Rehearsal", "rehearse"]

# A network trained from shuffled weights stands in for the given one if its accuracy on the
# training examples is not lower by more than this.
LEARNING_GAP = 0.05

# Plain training from shuffled weights takes this many times the steps of a stage.
PLAIN_STAGES = 2

PLAIN_LR = 2e-3


@dataclass(frozen=True)
class Rehearsal:
    """The result of a rehearsal.

    - `from_shuffled_weights`: False if the given network itself was hardened, because training from
      shuffled weights did not reach its accuracy on the training examples.
    - `given_accuracy`: the accuracy of the given network on training examples.
    - `plain_accuracy`: the accuracy on the examples set aside of the network that was hardened,
      before hardening.
    - `distance`: its median distance on these examples, before hardening.
    - `examples`: the number of examples set aside.
    - `stages`: the stages, of which the last may be rejected.
    """

    from_shuffled_weights: bool
    given_accuracy: float
    plain_accuracy: float
    distance: float
    examples: int
    stages: tuple[Stage, ...]

    @classmethod
    def from_saved(cls, saved: Mapping[str, Any]) -> Rehearsal:
        """Rebuild the rehearsal from the result of `asdict`, read back from JSON."""
        stages = [{**stage, "strength": Strength(*stage["strength"])} for stage in saved["stages"]]
        return cls(**{**saved, "stages": tuple(Stage(**stage) for stage in stages)})

    @property
    def accepted(self) -> tuple[Strength, ...]:
        """The strength of each accepted stage."""
        return tuple(stage.strength for stage in self.stages if stage.accepted)


def rehearse(
    backend: TrainingBackend,
    trainer: Trainer,
    monitor: Monitor,
    *,
    defense: DeepDefense,
    recipe: Recipe,
    max_accuracy_drop: float | None,
    watcher: Watcher,
) -> Rehearsal:
    """Train and harden stand-ins for the trainer's network, and return their stages.

    `recipe` has the settings of a stage. At the end, the trainer has its initial state.
    """
    start, given = trainer.state(), monitor.measure_training_accuracy(trainer.model)
    monitors = split_into_folds(monitor, recipe.seed)
    folds, stands_in = [], True
    for number, part in enumerate(monitors, 1):
        trainer.restore(start)
        if stands_in:
            task = f"rehearse plain training, part {number} of {len(monitors)}"
            _train_plainly(backend, trainer, part, recipe, QuietWatcher(watcher, task))
            learnt = part.measure_training_accuracy(trainer.model)
            stands_in = number > 1 or learnt >= given - LEARNING_GAP
        if not stands_in:
            trainer.restore(start)
        folds.append(make_fold(backend, trainer, part, defense, recipe.seed))
    initial, stages = climb(
        backend,
        trainer,
        folds,
        recipe=recipe,
        max_accuracy_drop=max_accuracy_drop,
        watcher=watcher,
        task="rehearse",
    )
    trainer.restore(start)
    return Rehearsal(
        from_shuffled_weights=stands_in,
        given_accuracy=given,
        plain_accuracy=initial.accuracy,
        distance=initial.distance,
        examples=sum(len(fold.y) for fold in folds),
        stages=stages,
    )


def _train_plainly(
    backend: TrainingBackend, trainer: Trainer, monitor: Monitor, recipe: Recipe, watcher: Watcher
) -> None:
    """Shuffle the trainer's weights, and train them by the cross-entropy alone."""
    shuffle_parameters(backend, trainer, recipe.seed)
    steps = PLAIN_STAGES * (recipe.optimizer_steps or 0)
    run_training(
        "rehearsal",
        trainer,
        monitor,
        recipe=replace(recipe, lr=PLAIN_LR, mode="training", optimizer_steps=steps),
        objective=Objective(),
        checkpoint=None,
        watcher=watcher,
    )
