"""The experiments of the study. Each pairs a network with a data set and training settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from deepdefense.defenses.deep_defense import FAST
from deepdefense.training.recipe import Recipe

__all__ = ["EXPERIMENTS", "Experiment"]


@dataclass(frozen=True)
class HardeningSettings:
    """The recipe for hardening a network, and the `steepness` of the penalty.

    `fit_penalty` computes the penalty's setting c = steepness / (median rho).
    """

    recipe: Recipe
    steepness: float


@dataclass(frozen=True)
class Experiment:
    """A network on a data set, with the settings to train it and to harden it.

    `reference` is the recipe for training the undefended network. `recipe`, `steepness` and
    `defense` are used for hardening, and were chosen on validation examples. `defense` holds the
    settings of the penalty that differ from the defaults, except c and d, which are fitted to the
    network.
    """

    data: str
    network: str
    reference: Recipe
    recipe: Recipe
    steepness: float
    defense: Mapping[str, Any]
    image: HardeningSettings | None = None  # recipe and steepness for the method "image"

    @property
    def name(self) -> str:
        """The name of the experiment, which joins data and network, such as mnist-lenet."""
        return f"{self.data}-{self.network}"

    def get_hardening(self, method: str) -> HardeningSettings:
        """Return the recipe and the steepness for the method named `method`."""
        if method == "image" and self.image is not None:
            return self.image
        return HardeningSettings(self.recipe, self.steepness)


# IMPLICIT and LIGHT are settings of the penalty; AUGMENTED and COSINE are settings of the recipe.
IMPLICIT = {"gradient": "implicit", "candidates": 3}

# Without random flips and shifts, a network memorises the training images of CIFAR-10, and the
# robustness gained on them does not generalise to held-out images.
AUGMENTED: Mapping[str, Any] = {"flip": True, "shift": 4}
LIGHT: Mapping[str, Any] = {**FAST, "lam": 10.0}
COSINE: Mapping[str, Any] = {"decay": 0.01, "anneal": True, "warmup": 1.0}
_EXPERIMENTS = (
    Experiment(
        "digits",
        "mlp",
        reference=Recipe.paper(epochs=67, lr=1e-3, decay=0.1),
        recipe=Recipe.paper(epochs=60, lr=2e-3, warmup=1.0, clip="auto"),
        steepness=0.7,
        defense=IMPLICIT,
    ),
    Experiment(
        "mnist",
        "mlp",
        reference=Recipe.paper(epochs=10, lr=1e-3, decay=0.1),
        recipe=Recipe.paper(epochs=12, lr=1e-3, decay=0.1, warmup=0.5, clip="auto"),
        steepness=0.9,
        defense=IMPLICIT,
    ),
    Experiment(
        "mnist",
        "lenet",
        reference=Recipe.paper(epochs=10, lr=1e-3, decay=0.1),
        recipe=Recipe.paper(epochs=14, lr=1e-3, decay=0.2, warmup=0.5, clip="auto"),
        steepness=2.8,
        defense=FAST,
        image=HardeningSettings(
            Recipe.paper(epochs=16, lr=1e-3, clip="auto", **COSINE), steepness=1.7
        ),
    ),
    Experiment(
        "cifar10",
        "convnet",
        reference=Recipe.paper(epochs=30, lr=1e-3, decay=0.1, **AUGMENTED),
        recipe=Recipe.paper(epochs=60, lr=4e-4, clip="auto", flip=True, shift=2, **COSINE),
        steepness=0.5,
        defense=LIGHT,
    ),
    Experiment(
        "cifar10",
        "nin",
        reference=Recipe.paper(epochs=45, lr=0.06, batch_size=250, clip=5.0, **COSINE, **AUGMENTED),
        recipe=Recipe.paper(epochs=22, lr=0.02, batch_size=250, clip="auto", **COSINE, **AUGMENTED),
        steepness=0.5,
        defense=LIGHT,
    ),
)
EXPERIMENTS: Mapping[str, Experiment] = {experiment.name: experiment for experiment in _EXPERIMENTS}
