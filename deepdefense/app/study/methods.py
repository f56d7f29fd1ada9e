"""The fine-tuning methods that the study compares.

Most methods have settings, such as the eps of an attack, that are derived from measurements of the
reference network.
"""

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
    """Perturbation sizes and penalties that suit one reference network.

    `ExperimentRunner.measure_scale` measures them on training examples, and each `Method` takes its
    settings from them.
    """

    # If accuracy without an attack is above 50 %, the eps at which FGS lowers accuracy to 50 %.
    # Otherwise, the eps at which FGS halves accuracy.
    fgs: float
    distance: float  # the median 2-norm of the perturbations that DeepFool finds
    fitted: DeepDefense  # the experiment's penalty, with c and d fitted to the network
    # A penalty with fitted c and d that measures the distance to the nearest boundary point within
    # the range of pixel values, because only such a point is an image.
    image: DeepDefense


@dataclass(frozen=True)
class Method:
    """A method that fine-tunes a network.

    `make_objective` returns the training objective of the method. `adapt_recipe` returns the
    method's variant of the experiment's recipe.
    """

    label: str
    make_objective: Callable[[Scale], Objective]
    adapt_recipe: Callable[[Recipe], Recipe] = lambda recipe: recipe


def _halve_rate(recipe: Recipe) -> Recipe:
    """Return `recipe` with half its learning rate."""
    return replace(recipe, lr=recipe.lr / 2)


def _use_paper_recipe(recipe: Recipe) -> Recipe:
    """Return the paper's recipe, with the seed of `recipe` and no more epochs than `recipe` has."""
    return Recipe(seed=recipe.seed, epochs=min(recipe.epochs, Recipe().epochs))


# With these settings, the penalty searches for the point of the decision boundary nearest to the
# example. The point that DeepFool finds is usually farther away.
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
