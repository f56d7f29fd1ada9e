"""Which attacks an evaluation runs, and with which settings; how much that costs."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from deepdefense import attacks
from deepdefense.attacks.common.problem import Perturbation
from deepdefense.errors import InputError
from deepdefense.evaluation.subject import Subject

__all__ = ["PRESETS", "PlannedAttack", "build_suite", "estimate_seconds"]

SEEDED_ATTACKS = ("apgd", "square")
PRESETS = ("quick", "standard", "thorough")
TARGETED_CLASSES = 9  # of the targeted loss, as AutoAttack has it


@dataclass(frozen=True)
class PlannedAttack:
    """One attack and its settings; about how many `gradients` and `queries` an example takes."""

    name: str
    kind: Literal["minimum-norm", "within eps"]
    settings: tuple[tuple[str, Any], ...]
    gradients: int
    queries: int

    @property
    def eps(self) -> float | None:
        """The radius, of an attack within one."""
        return dict(self.settings).get("eps")

    def __call__(self, subject: Subject, x: Any, y: Any, seed: int) -> Perturbation:
        """The attack on a native batch."""
        options = dict(self.settings)
        if self.name in SEEDED_ATTACKS:
            options["seed"] = seed
        function: Callable[..., Perturbation] = getattr(attacks, self.name)
        return function(subject.scaled_logits, x, y, bounds=subject.native_bounds, **options)

    def __str__(self) -> str:
        """The attack as it would be called."""
        return f"{self.name}({', '.join(f'{key}={value}' for key, value in self.settings)})"


def minimum_norm_attack(
    name: str, p: float, *, gradients: int, queries: int = 10, **settings: Any
) -> PlannedAttack:
    """An attack for the nearest point that fools; those for any norm are told which."""
    order = {} if name in ("ddn", "cw") else {"p": p}
    return PlannedAttack(
        name, "minimum-norm", tuple({**order, **settings}.items()), gradients, queries
    )


def fixed_budget_attack(
    name: str, p: float, eps: float, *, gradients: int, queries: int, **settings: Any
) -> PlannedAttack:
    """An attack within eps."""
    options = {"eps": eps, "p": p, **settings}
    return PlannedAttack(name, "within eps", tuple(options.items()), gradients, queries)


def build_suite(
    preset: str, p: float, eps: tuple[float, ...], classes: int
) -> tuple[PlannedAttack, ...]:
    """The attacks of a preset in the norm p, those without an eps first.

    quick: DeepFool, SuperDeepFool, FMN, and within each eps FGSM, APGD, and 100 random squares.
    standard: more steps, DDN (p = 2), and APGD towards each of nine classes; 1,000 squares.
    thorough: five times the steps, CW (p = 2), restarts, and 5,000 squares.
    """
    if preset not in PRESETS:
        raise InputError(f"preset must be one of {', '.join(PRESETS)}, got {preset!r}")
    if p not in (2, math.inf):
        raise InputError(f"the norm of an evaluation must be 2 or inf, got {p!r}")
    steps = {"quick": 30, "standard": 100, "thorough": 500}[preset]
    rounds = {"quick": 3, "standard": 10, "thorough": 20}[preset]
    squares = {"quick": 100, "standard": 1000, "thorough": 5000}[preset]
    restarts = 5 if preset == "thorough" else 1
    compared = min(9, classes - 1)  # boundaries that each step of DeepFool looks at
    found = [
        minimum_norm_attack("deepfool", p, gradients=3 * compared, queries=4, steps=50),
        minimum_norm_attack("fmn", p, gradients=steps + compared, steps=steps),
        minimum_norm_attack(
            "superdeepfool",
            p,
            gradients=rounds * (2 * compared + 1),
            queries=4 * rounds,
            steps=rounds,
        ),
    ]
    if p == 2 and preset != "quick":
        found.append(minimum_norm_attack("ddn", p, gradients=steps + compared, steps=steps))
    if p == 2 and preset == "thorough":
        found.append(minimum_norm_attack("cw", p, gradients=9 * 200, steps=200, searches=9))
    for radius in eps:
        found.append(
            fixed_budget_attack(
                "apgd",
                p,
                radius,
                gradients=steps * restarts,
                queries=0,
                steps=steps,
                restarts=restarts,
            )
        )
        if preset != "quick":
            targets = min(TARGETED_CLASSES, classes - 1)
            found.append(
                fixed_budget_attack(
                    "apgd",
                    p,
                    radius,
                    gradients=steps * targets,
                    queries=0,
                    steps=steps,
                    loss="targeted-dlr",
                    targets=targets,
                )
            )
        found.append(
            fixed_budget_attack("square", p, radius, gradients=0, queries=squares, steps=squares)
        )
        found.append(fixed_budget_attack("fgsm", p, radius, gradients=1, queries=1))
    return tuple(found)


def estimate_seconds(subject: Subject, planned: tuple[PlannedAttack, ...]) -> float:
    """About how long the attacks will take, by the time of a gradient and a query here.

    A short walk is timed, its first run apart, as frameworks compile or warm up; and the one by one
    that every claim is confirmed with.
    """
    right = np.flatnonzero(subject.correct)
    rows = right[: subject.batch_size]
    if not len(rows):
        return 0.0
    x, y = subject.load_examples(rows)

    def timed(attack: Callable[[], Perturbation], units: int) -> float:
        took = []
        for _ in range(2):
            start = time.perf_counter()
            subject.backend.to_numpy(attack().success)  # waits for what is still running
            took.append(time.perf_counter() - start)
        return min(took) / units

    bounds, n = subject.native_bounds, len(right)
    gradient = timed(
        lambda: attacks.fmn(subject.scaled_logits, x, y, steps=5, bounds=bounds), 5 + 5
    )
    query = timed(
        lambda: attacks.square(subject.scaled_logits, x, y, eps=0.0, steps=5, bounds=bounds), 5
    )
    begun = time.perf_counter()
    subject.predict(subject.x[rows[:8]], batch_size=1)
    alone = (time.perf_counter() - begun) / len(rows[:8])
    each = sum(a.gradients * gradient + a.queries * query for a in planned)
    return each * math.ceil(n / len(rows)) + alone * n * len(planned)
