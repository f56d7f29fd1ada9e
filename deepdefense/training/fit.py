"""Train a network once with a defence and a recipe, as `harden` does if both are given."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

from deepdefense.defenses.objective import Objective
from deepdefense.seam.progress import Watcher
from deepdefense.seam.training_contract import TrainingBackend
from deepdefense.training.cost import Cost, measure_cost
from deepdefense.training.guard import Guard
from deepdefense.training.history import EpochRecord
from deepdefense.training.loop import Checkpoint, run_training
from deepdefense.training.monitor import Monitor
from deepdefense.training.recipe import LEAST_CLIP, Recipe
from deepdefense.training.rehearsal import Rehearsal

__all__ = ["Fit", "choose_clip", "fit_once"]


class Fit(NamedTuple):
    """A hardened network, and how it was trained.

    - `model`: the hardened network. It is a copy of the given one if hardening brought no gain.
    - `defense`, `recipe`: the settings of training, those that were found included.
    - `history`: a record for each accepted period.
    - `stopped`: the reason, if a rejected period ended training early; None otherwise.
    - `notes`: one line for each other event of training.
    - `cost`: the cost of a hardening step.
    - `rehearsal`: the rehearsal that chose the strength of the penalty, if there was one.
    - `no_gain`: the reason, if the given network is returned; None otherwise.
    """

    model: Any
    defense: Objective
    recipe: Recipe
    history: tuple[EpochRecord, ...]
    stopped: str | None
    notes: tuple[str, ...]
    cost: Cost
    rehearsal: Rehearsal | None = None
    no_gain: str | None = None


def fit_once(
    backend: TrainingBackend,
    model: Any,
    monitor: Monitor,
    *,
    defense: Objective,
    recipe: Recipe,
    guard: Guard,
    checkpoint: Checkpoint | None,
    watcher: Watcher,
    warn: Callable[[str], None],
) -> Fit:
    """Train a copy of the network with the defence.

    If the recipe's gradient clip is "auto", the result has the clip that was used: a number, or
    None for no clipping.
    """
    trainer = recipe.make_trainer(backend, backend.copy(model))
    cost, gradient = measure_cost(backend, trainer, monitor.data, defense, recipe)
    if recipe.clip == "auto":
        recipe = replace(recipe, clip=choose_clip(gradient, warn))
    _announce_cost(cost, recipe, len(monitor.training_rows), watcher)
    progress = run_training(
        "harden",
        trainer,
        monitor,
        recipe=recipe,
        objective=defense,
        guard=guard,
        checkpoint=checkpoint,
        watcher=watcher,
    )
    return Fit(
        model=trainer.model,
        defense=defense,
        recipe=recipe,
        history=progress.history,
        stopped=progress.stopped,
        notes=progress.notes,
        cost=cost,
    )


def choose_clip(gradient: float, warn: Callable[[str], None]) -> float | None:
    """Return the gradient clip to use in place of "auto".

    This is `gradient`, the median 2-norm of the gradients before training, rounded to three digits.
    If `gradient` is less than `LEAST_CLIP` or not finite, return None (no clipping) and warn.
    """
    if not LEAST_CLIP <= gradient < math.inf:
        warn(f"no clip: the gradient before training has no size to go by ({gradient:g})")
        return None
    return float(f"{gradient:.3g}")


def _announce_cost(cost: Cost, recipe: Recipe, examples: int, watcher: Watcher) -> None:
    """Report the relative cost of a hardening step, and the expected duration of training."""
    seconds = recipe.count_steps(examples, recipe.periods) * cost.hardening_step_seconds
    steps = recipe.optimizer_steps
    length = f"{recipe.epochs} epochs" if steps is None else f"{steps:,} steps"
    watcher.say(
        f"a hardening step takes {cost.ratio:.1f} times a plain one: "
        f"about {seconds:.0f} s for {length}"
    )
