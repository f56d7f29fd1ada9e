"""The rivals of `dd.harden`: other methods, with the same number of optimizer steps."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import deepdefense as dd
from benchmarks.battery.data import Examples

__all__ = ["RATES", "list_rivals", "make_recipe"]

# The learning rates with which each rival trains. The better of the networks counts.
RATES = (1e-3, 1e-2)

CLEAN_WEIGHT = 0.5  # the weight of unperturbed examples in FGS and PGD training

MakeObjective: TypeAlias = Callable[[], dd.Objective]


def list_rivals(
    model: Any, data: Examples, distance: float, bounds: tuple[float, float] | None
) -> Mapping[str, MakeObjective]:
    """Return the rivals by name, as functions that make the training objective.

    `distance` is the typical distance of the given network. The radii are multiples of it. The step
    of FGS, in the maximum norm, has a 2-norm of twice the distance.
    """
    twice = 2 * distance
    baselines = dd.baselines

    def make_pgd(eps: float) -> MakeObjective:
        return lambda: baselines.PGDTraining(eps=eps, p=2.0, alpha=CLEAN_WEIGHT, bounds=bounds)

    def make_penalty(steepness: float) -> MakeObjective:
        def make() -> dd.Objective:
            penalty = dd.DeepDefense.fast(steps=3, bounds=bounds)
            return dd.calibrate(model, data.x_train, data.y_train, penalty, steepness=steepness)

        return make

    fgs_eps = twice / math.sqrt(data.x_train[0].size)
    return {
        "plain": dd.Objective,
        "fgs": lambda: baselines.AdversarialTraining(eps=fgs_eps, alpha=CLEAN_WEIGHT),
        **{f"pgd {factor}": make_pgd(factor * distance) for factor in (1, 2, 3)},
        "trades 2": lambda: baselines.TRADES(eps=twice, p=2.0, bounds=bounds),
        "mma 4": lambda: baselines.MMA(d_max=4 * distance, p=2.0, bounds=bounds),
        **{f"fixed {steepness:g}": make_penalty(steepness) for steepness in (1.0, 0.5)},
    }


def make_recipe(steps: int, lr: float, seed: int) -> dd.Recipe:
    """Return the recipe of the rivals: Adam, a short warm-up, and a cosine that ends at 0."""
    return dd.Recipe(
        optimizer="adam",
        optimizer_steps=steps,
        lr=lr,
        anneal=True,
        decay=0.0,
        warmup=0.5,
        weight_decay=0.0,
        mode="inference",
        seed=seed,
    )
