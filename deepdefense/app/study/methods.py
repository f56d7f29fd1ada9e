"""The fine-tuning methods that the study compares."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from deepdefense.defenses.baselines import (
    MMA,
    TRADES,
    AdversarialTraining,
    DeepFoolTraining,
    Parseval,
    PGDTraining,
)
from deepdefense.defenses.deep_defense import FAST, DeepDefense
from deepdefense.defenses.objective import Objective
from deepdefense.training.recipe import Recipe
from deepdefense.training.staged_fit import STAGED_PENALTY

__all__ = ["METHODS", "NEAREST_POINT", "Method", "Scale"]


@dataclass(frozen=True)
class Scale:
    """Perturbation sizes and penalties that suit one reference network.

    Each `Method` takes its settings from them.
    """

    # The eps at which FGS lowers accuracy to 50 %, or halves it if it is at most 50 % without FGS.
    fgs: float
    distance: float  # the median 2-norm of the perturbations that DeepFool finds
    fitted: DeepDefense  # the experiment's penalty, with c and d fitted to the network
    # A penalty with fitted c and d that searches for the nearest boundary point in the pixel range.
    image: DeepDefense


@dataclass(frozen=True)
class Method:
    """A method that fine-tunes a network.

    `make_objective` returns the training objective of the method. `adapt_recipe` returns the
    method's variant of the experiment's recipe, for a number of training examples.
    """

    label: str
    make_objective: Callable[[Scale], Objective]
    adapt_recipe: Callable[[Recipe, int], Recipe] = lambda recipe, examples: recipe


def _halve_rate(recipe: Recipe, examples: int) -> Recipe:
    """Return `recipe` with half its learning rate."""
    return replace(recipe, lr=recipe.lr / 2)


def _use_paper_recipe(recipe: Recipe, examples: int) -> Recipe:
    """Return the paper's recipe, with the seed of `recipe` and no more epochs than `recipe` has."""
    paper = Recipe.paper(seed=recipe.seed)
    return replace(paper, epochs=min(recipe.epochs, paper.epochs))


def _use_stages(recipe: Recipe, examples: int) -> Recipe:
    """Return the default recipe of `harden`, whose stages take no more steps than `recipe`."""
    shared = {"seed": recipe.seed, "batch_size": recipe.batch_size, **recipe.augmentation}
    staged = Recipe.staged(examples, **shared)
    steps = recipe.count_steps(examples, recipe.periods)
    return replace(staged, optimizer_steps=min(staged.optimizer_steps or steps, steps))


# With these settings, the penalty searches for the boundary point nearest to the example.
NEAREST_POINT: Mapping[str, Any] = {**FAST, "steps": 3}
METHODS: Mapping[str, Method] = {
    "plain": Method("plain fine-tuning", lambda scale: Objective()),
    "parseval": Method("Parseval networks", lambda scale: Parseval()),
    "fgs": Method("adversarial training, FGS", lambda scale: AdversarialTraining(eps=scale.fgs)),
    "deepfool": Method(
        "adversarial training, DeepFool", lambda scale: DeepFoolTraining(), _halve_rate
    ),
    "pgd": Method("PGD training", lambda scale: PGDTraining(eps=scale.distance, p=2, steps=7)),
    "trades": Method("TRADES", lambda scale: TRADES(eps=scale.distance, p=2, steps=7)),
    "mma": Method("MMA training", lambda scale: MMA(d_max=2 * scale.distance, steps=10)),
    "paper": Method(
        "Deep Defense, the paper's settings", lambda scale: DeepDefense(), _use_paper_recipe
    ),
    "deepdefense": Method("Deep Defense, fitted", lambda scale: scale.fitted),
    "nearest": Method(
        "Deep Defense, nearest point", lambda scale: replace(scale.fitted, **NEAREST_POINT)
    ),
    "default": Method("Deep Defense, settings found", lambda scale: STAGED_PENALTY, _use_stages),
    "image": Method("Deep Defense, nearest image", lambda scale: scale.image),
}
