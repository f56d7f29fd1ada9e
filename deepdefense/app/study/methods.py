"""The methods that the study compares, with settings in proportion to the network's scale."""

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

__all__ = ["METHODS", "NEAREST_POINT", "Method", "Scale"]


@dataclass(frozen=True)
class Scale:
    """The reference network's scale, measured on training examples before hardening."""

    fgs: float  # the FGS step that lowers accuracy to 50 %, or halves it if it is lower already
    distance: float  # the median l2 distance by DeepFool
    fitted: DeepDefense  # with c and d fitted to the network
    image: DeepDefense  # with the distance to the nearest image: a point in the range of pixels


@dataclass(frozen=True)
class Method:
    """A way to fine-tune a network: an objective, and a change of the common recipe."""

    label: str
    make_objective: Callable[[Scale], Objective]
    adapt_recipe: Callable[[Recipe], Recipe] = lambda recipe: recipe


def _halve_rate(recipe: Recipe) -> Recipe:
    """Return the recipe with half the learning rate."""
    return replace(recipe, lr=recipe.lr / 2)


def _use_paper_recipe(recipe: Recipe) -> Recipe:
    """Return the paper's recipe with this seed, and no more epochs than the recipe has."""
    return Recipe(seed=recipe.seed, epochs=min(recipe.epochs, Recipe().epochs))


# The search for the nearest point of a decision boundary; DeepFool's point is farther away.
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
    "image": Method("Deep Defense, nearest image", lambda scale: scale.image),
}
