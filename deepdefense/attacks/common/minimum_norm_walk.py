"""The loop of the minimum-norm attacks `ddn` and `fmn`, which keeps the nearest fooling point.

Each attack supplies its own `Move`, a function that computes the next point from the last one.
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

__all__ = ["Iterate", "WalkTask", "cosine_schedule", "walk"]


class WalkTask(NamedTuple):
    """The data of each example that a `Move` uses, which stay constant during the walk."""

    x: Array  # [b d]
    label: Array  # [b]
    distance: Array  # [b], the estimated distance to the boundary


class Iterate(NamedTuple):
    """The last point tried, x + delta, and its results, which a `Move` uses for the next point."""

    delta: Array  # [b d]
    distance: Array  # [b], the norm of delta
    fooled: Array  # [b], whether the point fools the model
    value: Array  # [b], the loss to maximise
    gradient: Array  # [b d], the gradient of the loss
    radius: Array  # [b], the radius that the last move returned
    nearest: Array  # [b], the distance of the nearest point so far that fooled the model, or inf
    time: Array  # [b], the share of the steps that are done


class _WalkState(NamedTuple):
    """The state of the walk after each step."""

    point: Array  # [b d], the point to try next
    radius: Array  # [b], the radius that the last move returned
    time: Array  # [b], the share of the steps that are done
    best: Array  # [b d], the nearest point that fooled the model
    nearest: Array  # [b], the distance of `best`; inf if no point fooled the model
    steps: Array  # [b], the number of points tried


# A move returns the next delta [b d] and the next radius [b].
Move = Callable[[WalkTask, Iterate], tuple[Array, Array]]


def cosine_schedule(backend: Backend, time: Array, first: float, last: float) -> Array:
    """Return values that fall along a cosine from `first` at time 0 to `last` at time 1: [b]."""
    return last + (first - last) * (1 + backend.xp.cos(math.pi * time)) / 2


def walk(
    problem: Problem,
    move: Move,
    *,
    loss: Callable[[Backend, Array, Array], Loss],
    p: float,
    steps: int,
) -> Perturbation:
    """Try `steps` points for each example, and return the nearest that fools the model, refined.

    The first point is the nearest point of the boundary of the network linearised at x. `move`
    computes each later point. See `attacks.common.refinement` for the last stage.
    """
    backend = problem.backend
    xp = backend.xp

    def step(state: _WalkState, task: WalkTask) -> tuple[_WalkState, Array]:
        logits, value, gradient = problem.find_ascent(
            state.point, lambda logits: loss(backend, logits, task.label)
        )
        delta = state.point - task.x
        distance = norm(backend, delta, p)
        fooled = problem.is_fooled(logits, task.label)
        best, nearest = problem.keep_nearest(
            state.best, state.nearest, state.point, distance, fooled
        )
        delta, radius = move(
            task,
            Iterate(delta, distance, fooled, value, gradient, state.radius, nearest, state.time),
        )
        state = _WalkState(
            point=problem.clip(task.x + delta),
            radius=radius,
            time=state.time + 1 / steps,
            best=best,
            nearest=nearest,
            steps=state.steps + 1,
        )
        return state, xp.isfinite(radius)

    (x, label), estimate = problem.example, problem.estimate_distance(p)
    zero = xp.zeros_like(estimate.distance)
    start = _WalkState(
        point=estimate.point,
        radius=estimate.distance,
        time=zero,
        best=x,
        nearest=zero + math.inf,
        steps=xp.zeros_like(label),
    )
    task = WalkTask(x, label, estimate.distance)
    state = backend.iterate(step, start, task, problem.is_open, steps=steps)
    return finish(problem, state.best, state.nearest, state.point, state.steps, p)
