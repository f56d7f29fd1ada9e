"""Harden in stages: strengthen the penalty from stage to stage, as long as accuracy holds.

A stage is a training run with one strength of the penalty. Each stage starts from the network of
the stage before, and halves c, which lets the penalty reach further from the examples.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from deepdefense.evaluation.statistics import wilson_interval

__all__ = [
    "PENALTY_STRENGTHS",
    "Judge",
    "Measured",
    "Stage",
    "Strength",
    "describe_strength",
    "strengthen",
]


class Strength(NamedTuple):
    """The strength of the penalty in a stage.

    `steepness` is c * (median rho before training): a smaller one reaches further. `weight` is the
    factor of the penalty's lam: a smaller one spares accuracy. `share` is the share of the way, on
    the line between the weights before and after the stage, at which the weights end.
    """

    steepness: float
    weight: float = 1.0
    share: float = 1.0


# The strength of the penalty in each stage.
PENALTY_STRENGTHS = tuple(Strength(steepness) for steepness in (1.0, 0.5, 0.25, 0.125))

# The strengths that are tried instead, until one is accepted, if the first of `PENALTY_STRENGTHS`
# costs too much accuracy.
GENTLE_STRENGTHS = Strength(1.0, weight=0.1), Strength(1.0, weight=0.1, share=0.5)

# A stage is accepted only if the median distance grows at least by this factor. Below it, the
# growth is within the noise of the measurement.
LEAST_GAIN = 1.05


# The largest drop of accuracy that is allowed by default, also where the standard error is larger.
LARGEST_DROP = 0.01


class Measured(NamedTuple):
    """The accuracy of a network, and its median distance to the decision boundary."""

    accuracy: float
    distance: float


@dataclass(frozen=True)
class Stage:
    """A stage of hardening, and its result on examples that it did not train on.

    `rejection` is the reason why the stage was rejected, "accuracy" or "distance", or empty if it
    was accepted.
    """

    strength: Strength
    accuracy: float
    distance: float
    rejection: str

    @property
    def accepted(self) -> bool:
        """Whether the stage was accepted."""
        return not self.rejection


@dataclass(frozen=True)
class Judge:
    """The demands on a stage: the distance grows, and accuracy does not fall below `floor`.

    `initial` is the measurement before hardening.
    """

    floor: float
    initial: Measured

    @classmethod
    def from_initial(
        cls, initial: Measured, examples: int, max_accuracy_drop: float | None
    ) -> Judge:
        """Return a judge for networks that are measured on this number of examples.

        `max_accuracy_drop` None allows a drop of one standard error, rounded to whole examples, and
        at most `LARGEST_DROP`. The standard error is taken from the width of Wilson's interval,
        which is positive also at an accuracy of 1.
        """
        drop = max_accuracy_drop
        if drop is None:
            low, high = wilson_interval(initial.accuracy, examples)  # of 95 % confidence
            drop = min(round(examples * (high - low) / (2 * 1.96)) / examples, LARGEST_DROP)
        tolerance = 1e-9  # accuracies are means of folds, with rounding errors
        return cls(initial.accuracy - drop - tolerance, initial)

    def judge(self, strength: Strength, measured: Measured, best: Measured) -> Stage:
        """Accept or reject a stage. `best` is the measurement before the stage."""
        rejection = ""
        if measured.accuracy < self.floor:
            rejection = "accuracy"
        elif not measured.distance > LEAST_GAIN * best.distance:  # 0 and inf have no gain
            rejection = "distance"
        return Stage(strength, *measured, rejection)


def strengthen(
    attempt: Callable[[Strength], Measured], keep: Callable[[], None], judge: Judge
) -> tuple[Stage, ...]:
    """Attempt stages until one is rejected, and return all stages.

    `attempt` trains a stage with the strength that it gets, from the state that was kept last, and
    measures the result. `keep` keeps that result. If the first stage costs too much accuracy,
    `GENTLE_STRENGTHS` are attempted instead, until one is accepted.

    >>> distances = {1.0: 1.3, 0.5: 1.6, 0.25: 1.61}
    >>> judge = Judge(floor=0.9, initial=Measured(0.95, 1.0))
    >>> stages = strengthen(
    ...     lambda strength: Measured(0.95, distances[strength.steepness]), lambda: None, judge
    ... )
    >>> [(stage.strength.steepness, stage.rejection) for stage in stages]
    [(1.0, ''), (0.5, ''), (0.25, 'distance')]
    """
    stages: list[Stage] = []
    best = judge.initial

    def try_stage(strength: Strength) -> bool:
        nonlocal best
        measured = attempt(strength)
        stages.append(judge.judge(strength, measured, best))
        if stages[-1].accepted:
            best = measured
            keep()
        return stages[-1].accepted

    if all(map(try_stage, PENALTY_STRENGTHS)):
        return tuple(stages)
    if len(stages) == 1 and stages[0].rejection == "accuracy":
        any(map(try_stage, GENTLE_STRENGTHS))
    return tuple(stages)


def describe_strength(strength: Strength) -> str:
    """Return the strength in words, such as "c rho 0.5" or "c rho 1, lam x0.2".

    >>> describe_strength(Strength(1.0, weight=0.2))
    'c rho 1, lam x0.2'
    """
    weight = "" if strength.weight == 1 else f", lam x{strength.weight:g}"
    share = "" if strength.share == 1 else f", {strength.share:.0%} of the way"
    return f"c rho {strength.steepness:g}{weight}{share}"
