"""Lists the attacks of each preset with their settings, and estimates how long they take."""

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
from deepdefense.seam.frozen_dict import FrozenDict

__all__ = ["PRESETS", "PlannedAttack", "build_suite", "estimate_seconds"]

SEEDED_ATTACKS = ("apgd", "square")
PRESETS = ("quick", "standard", "thorough")
TARGETED_CLASSES = 9  # APGD with the targeted loss targets this many classes, as in AutoAttack


@dataclass(frozen=True)
class PlannedAttack:
    """An attack together with its settings; calling an instance attacks a batch.

    `gradients` and `queries` are the approximate numbers of gradients and of forward passes that
    the attack computes per example.
    """

    name: str
    kind: Literal["minimum-norm", "within eps"]
    settings: FrozenDict[Any]
    gradients: int
    queries: int

    @property
    def eps(self) -> float | None:
        """The radius of a fixed-budget attack, or None for a minimum-norm attack."""
        return self.settings.get("eps")

    def __call__(self, subject: Subject, x: Any, y: Any, seed: int) -> Perturbation:
        """Attack a batch of examples x [b ...] with labels y [b], as arrays of the framework."""
        options = dict(self.settings)
        if self.name in SEEDED_ATTACKS:
            options["seed"] = seed
        function: Callable[..., Perturbation] = getattr(attacks, self.name)
        return function(subject.scaled_logits, x, y, bounds=subject.native_bounds, **options)

    def __str__(self) -> str:
        """Return the attack in the form of a function call, such as `fmn(p=2, steps=30)`."""
        settings = ", ".join(f"{key}={value}" for key, value in self.settings.items())
        return f"{self.name}({settings})"


def _minimum_norm(
    name: str, p: float, *, gradients: int, queries: int = 10, **settings: Any
) -> PlannedAttack:
    """Plan a minimum-norm attack in the p-norm; `ddn` and `cw` have no parameter p."""
    order = {} if name in ("ddn", "cw") else {"p": p}
    options = FrozenDict({**order, **settings})
    return PlannedAttack(name, "minimum-norm", options, gradients, queries)


def _within(
    name: str, p: float, eps: float, *, gradients: int, queries: int, **settings: Any
) -> PlannedAttack:
    """Plan a fixed-budget attack within radius eps in the p-norm."""
    options = FrozenDict({"eps": eps, "p": p, **settings})
    return PlannedAttack(name, "within eps", options, gradients, queries)


@dataclass(frozen=True)
class _Strength:
    """The computational effort that a preset spends on each attack."""

    steps: int  # iterations of FMN, DDN and APGD
    rounds: int  # iterations of SuperDeepFool
    squares: int  # queries of the random search `square`
    restarts: int  # restarts of APGD


STRENGTHS = {
    "quick": _Strength(steps=30, rounds=3, squares=100, restarts=1),
    "standard": _Strength(steps=100, rounds=10, squares=1000, restarts=1),
    "thorough": _Strength(steps=500, rounds=20, squares=5000, restarts=5),
}


def build_suite(
    preset: str, p: float, eps: tuple[float, ...], classes: int
) -> tuple[PlannedAttack, ...]:
    """Return the attacks of a preset in the p-norm, for a network with `classes` classes.

    The minimum-norm attacks come first. The fixed-budget attacks follow, once for each radius in
    `eps`.

    - quick: the minimum-norm attacks are DeepFool, FMN and SuperDeepFool. The fixed-budget attacks
      are APGD, the random search `square` with 100 queries, and FGSM.
    - standard: the same attacks with more steps and 1,000 queries. Additional attacks are DDN, if
      p = 2, and APGD with the targeted loss, which targets up to nine classes one after another.
    - thorough: the attacks of standard with still more steps and 5,000 queries, and CW if p = 2.
      Untargeted APGD runs from five starting points.

    Raises:
        InputError: an unknown preset, or a norm other than 2 and inf.
    """
    if preset not in PRESETS:
        raise InputError(f"preset must be one of {', '.join(PRESETS)}, got {preset!r}")
    if p not in (2, math.inf):
        raise InputError(f"the norm of an evaluation must be 2 or inf, got {p!r}")
    suite = _minimum_norm_suite(preset, p, classes)
    for radius in eps:
        suite += _fixed_budget_suite(preset, p, radius, classes)
    return suite


def _minimum_norm_suite(preset: str, p: float, classes: int) -> tuple[PlannedAttack, ...]:
    strength = STRENGTHS[preset]
    steps, rounds = strength.steps, strength.rounds
    rivals = min(9, classes - 1)  # classes whose boundaries DeepFool compares in each step
    suite = [
        _minimum_norm("deepfool", p, gradients=3 * rivals, queries=4, steps=50),
        _minimum_norm("fmn", p, gradients=steps + rivals, steps=steps),
        _minimum_norm(
            "superdeepfool",
            p,
            gradients=rounds * (2 * rivals + 1),
            queries=4 * rounds,
            steps=rounds,
        ),
    ]
    if p == 2 and preset != "quick":
        suite.append(_minimum_norm("ddn", p, gradients=steps + rivals, steps=steps))
    if p == 2 and preset == "thorough":
        suite.append(_minimum_norm("cw", p, gradients=9 * 200, steps=200, searches=9))
    return tuple(suite)


def _fixed_budget_suite(
    preset: str, p: float, eps: float, classes: int
) -> tuple[PlannedAttack, ...]:
    strength = STRENGTHS[preset]
    steps, restarts, squares = strength.steps, strength.restarts, strength.squares
    gradients = steps * restarts
    suite = [
        _within("apgd", p, eps, gradients=gradients, queries=0, steps=steps, restarts=restarts)
    ]
    if preset != "quick":
        targets = min(TARGETED_CLASSES, classes - 1)
        suite.append(
            _within(
                "apgd",
                p,
                eps,
                gradients=steps * targets,
                queries=0,
                steps=steps,
                loss="targeted-dlr",
                targets=targets,
            )
        )
    suite.append(_within("square", p, eps, gradients=0, queries=squares, steps=squares))
    suite.append(_within("fgsm", p, eps, gradients=1, queries=1))
    return tuple(suite)


def estimate_seconds(subject: Subject, planned: tuple[PlannedAttack, ...]) -> float:
    """Estimate how many seconds the attacks take on the correctly classified examples.

    The function times three operations: a gradient, a query, and a forward pass on a batch of one
    example, as in `confirm_points`. It multiplies the duration of each operation by how often the
    planned attacks perform it.
    """
    correct = np.flatnonzero(subject.correct)
    rows = correct[: subject.batch_size]
    if not len(rows):
        return 0.0
    x, y = subject.load_examples(rows)

    def time_unit(attack: Callable[[], Perturbation], units: int) -> float:
        seconds = []
        for _ in range(2):  # frameworks compile during the first run
            start = time.perf_counter()
            # Frameworks compute asynchronously; `to_numpy` waits until the attack has finished.
            subject.backend.to_numpy(attack().success)
            seconds.append(time.perf_counter() - start)
        return min(seconds) / units

    f, bounds = subject.scaled_logits, subject.native_bounds
    gradient = time_unit(lambda: attacks.fmn(f, x, y, steps=5, bounds=bounds), 5 + 5)
    query = time_unit(lambda: attacks.square(f, x, y, eps=0.0, steps=5, bounds=bounds), 5)
    begun = time.perf_counter()
    subject.predict(subject.x[rows[:8]], batch_size=1)
    confirmation = (time.perf_counter() - begun) / len(rows[:8])
    per_batch = sum(a.gradients * gradient + a.queries * query for a in planned)
    n = len(correct)
    return per_batch * math.ceil(n / len(rows)) + confirmation * n * len(planned)
