"""What walks to the nearest fooled point share: they try, look, move, and remember it.

Each attack says how it moves; lengths are measured in the first-order estimate of the distance, so
that nothing depends on the units of the inputs.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

from deepdefense.attacks.common.losses import Loss
from deepdefense.attacks.common.problem import Perturbation, Problem
from deepdefense.attacks.common.refinement import finish
from deepdefense.geometry.norms import norm
from deepdefense.seam.contract import Array, Backend

__all__ = ["WalkTask", "WalkView", "cosine_schedule", "walk"]


class WalkTask(NamedTuple):
    """What stays fixed for an example: itself, its class, and the first-order distance `unit`."""

    x: Array  # [b d]
    label: Array  # [b]
    unit: Array  # [b]


class WalkView(NamedTuple):
    """What a walk sees at a point x + delta that it has just tried.

    `delta` [b d] and its length `distance` [b]; whether it is `fooled` [b]; the `value` [b] that is
    driven up and its `gradient` [b d]; the `radius` [b] that led here; the `nearest` distance [b]
    that fooled so far, inf for none; the `time` [b] from 0 to 1.
    """

    delta: Array
    distance: Array
    fooled: Array
    value: Array
    gradient: Array
    radius: Array
    nearest: Array
    time: Array


class _WalkState(NamedTuple):
    point: Array  # [b d], to try next
    radius: Array  # [b]
    time: Array  # [b]
    best: Array  # [b d], the nearest point that fooled
    nearest: Array  # [b], its distance
    steps: Array  # [b]


Move = Callable[
    [WalkTask, WalkView], tuple[Array, Array]
]  # the next delta [b d], and its radius [b]


def cosine_schedule(backend: Backend, time: Array, first: float, last: float) -> Array:
    """From `first` at time 0 to `last` at time 1, along half a cosine."""
    return last + (first - last) * (1 + backend.xp.cos(math.pi * time)) / 2


def walk(
    problem: Problem,
    move: Move,
    *,
    loss: Callable[[Backend, Array, Array], Loss],
    p: float,
    steps: int,
) -> Perturbation:
    """Try a point, look, move, `steps` times; the nearest that fooled, at rest."""
    backend = problem.backend
    xp = backend.xp

    def step(state: _WalkState, start: WalkTask) -> tuple[_WalkState, Array]:
        logits, value, gradient = problem.find_ascent(
            state.point, lambda logits: loss(backend, logits, start.label)
        )
        delta = state.point - start.x
        distance = norm(backend, delta, p)
        fooled = problem.is_fooled(logits, start.label)
        best, nearest = problem.keep_nearest(
            state.best, state.nearest, state.point, distance, fooled
        )
        view = WalkView(delta, distance, fooled, value, gradient, state.radius, nearest, state.time)
        delta, radius = move(start, view)
        state = _WalkState(
            point=problem.clip(start.x + delta),
            radius=radius,
            time=state.time + 1 / steps,
            best=best,
            nearest=nearest,
            steps=state.steps + 1,
        )
        return state, xp.isfinite(radius)

    (x, label), estimate = problem.example, problem.estimate_distance(p)
    start = WalkTask(x, label, estimate.unit)
    zero = xp.zeros_like(estimate.unit)
    begun = _WalkState(
        point=estimate.point,
        radius=estimate.unit,
        time=zero,
        best=x,
        nearest=zero + math.inf,
        steps=xp.zeros_like(label),
    )
    state = backend.iterate(step, begun, start, problem.is_open, steps=steps)
    return finish(problem, state.best, state.nearest, state.point, state.steps, p)
