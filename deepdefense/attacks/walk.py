"""What attacks for the nearest fooled point share: the walk that remembers it, and its end.

Each attack says how it moves; lengths are measured in the first-order estimate of the distance, so
that nothing depends on the units of the inputs.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

from einops import einsum, rearrange

from deepdefense.attacks.losses import Loss, margin
from deepdefense.attacks.problem import Perturbation, Problem
from deepdefense.backend import Array, Backend
from deepdefense.norms import norm, steepest

__all__ = ["Start", "View", "cosine", "settled", "walk"]

HALVINGS = 10  # of the segment from the example to the point found
TURNS = 4  # towards the normal, each followed by halvings
BEYOND = 1e-3  # how far a turned point is set beyond the linearised boundary, relatively


class Start(NamedTuple):
    """What stays fixed for an example: itself, its class, and the first-order distance `unit`."""

    x: Array  # [b d]
    label: Array  # [b]
    unit: Array  # [b]


class View(NamedTuple):
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


class _Walk(NamedTuple):
    point: Array  # [b d], to try next
    radius: Array  # [b]
    time: Array  # [b]
    best: Array  # [b d], the nearest point that fooled
    nearest: Array  # [b], its distance
    steps: Array  # [b]


Move = Callable[[Start, View], tuple[Array, Array]]  # the next delta [b d], and its radius [b]


def cosine(backend: Backend, time: Array, first: float, last: float) -> Array:
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
    """Try a point, look, move, `steps` times; the nearest that fooled, drawn in to the edge."""
    backend = problem.backend
    xp = backend.xp

    def step(state: _Walk, start: Start) -> tuple[_Walk, Array]:
        logits, value, gradient = problem.rise(
            state.point, lambda logits: loss(backend, logits, start.label)
        )
        delta = state.point - start.x
        distance = norm(backend, delta, p)
        fooled = problem.fooled(logits, start.label)
        better = fooled & (distance < state.nearest)
        nearest = xp.where(better, distance, state.nearest)
        view = View(delta, distance, fooled, value, gradient, state.radius, nearest, state.time)
        delta, radius = move(start, view)
        state = _Walk(
            point=problem.inside(start.x + delta),
            radius=radius,
            time=state.time + 1 / steps,
            best=xp.where(rearrange(better, "b -> b 1"), state.point, state.best),
            nearest=nearest,
            steps=state.steps + 1,
        )
        return state, xp.isfinite(radius)

    (x, label), estimate = problem.example, problem.first_estimate(p)
    start = Start(x, label, estimate.unit)
    zero = xp.zeros_like(estimate.unit)
    begun = _Walk(
        point=estimate.point,
        radius=estimate.unit,
        time=zero,
        best=x,
        nearest=zero + math.inf,
        steps=xp.zeros_like(label),
    )
    state = backend.iterate(step, begun, start, problem.open, steps=steps)
    found = xp.isfinite(state.nearest)
    point = xp.where(rearrange(found, "b -> b 1"), state.best, state.point)
    return problem.result(settled(problem, point, found & problem.open, p), found, state.steps)


class _Segment(NamedTuple):
    low: Array  # [b], a share of the way that does not fool
    high: Array  # [b], one that does
    best: Array  # [b d], the point there, as it was tried


class _Ends(NamedTuple):
    x: Array
    label: Array
    point: Array


def tightened(problem: Problem, point: Array, found: Array) -> Array:
    """The points [b d] found, drawn in along the segment to their examples while they still fool.

    Bisection: ten forward passes bring the length within a thousandth of the crossing.
    """
    backend = problem.backend
    xp = backend.xp

    def halve(state: _Segment, ends: _Ends) -> tuple[_Segment, Array]:
        middle = (state.low + state.high) / 2
        tried = problem.inside(ends.x + rearrange(middle, "b -> b 1") * (ends.point - ends.x))
        fooled = problem.fooled(backend.forward(problem.f, tried), ends.label)
        return (
            _Segment(
                low=xp.where(fooled, state.low, middle),
                high=xp.where(fooled, middle, state.high),
                best=xp.where(rearrange(fooled, "b -> b 1"), tried, state.best),
            ),
            middle > 0,
        )

    x, label = problem.example
    zero = xp.zeros_like(x[:, 0])
    state = _Segment(zero, zero + 1, point)
    return backend.iterate(halve, state, _Ends(x, label, point), found, steps=HALVINGS).best


def settled(problem: Problem, point: Array, found: Array, p: float) -> Array:
    """The points [b d] found, brought to rest: drawn in, turned along the normal, and drawn in.

    With w the gradient of the margin at a point b, x + (1 + 1e-3) <b - x, w> / ||w||_q u, where
    u = argmax { <w, u> : ||u||_p <= 1 }, is the nearest to x of the hyperplane through b, and a
    little beyond. It is taken where it fools and is nearer. So walks that differ by a rounding, or
    a framework, end at the same point. Four gradients and some fifty forward passes.
    """
    backend = problem.backend
    xp = backend.xp

    def turn(state: _Turned, ends: _Ends) -> tuple[_Turned, Array]:
        _, _, normal = problem.rise(state.point, lambda f: margin(backend, f, ends.label))
        slope, way = steepest(backend, normal, p)
        there = slope > 0
        reach = (1 + BEYOND) * einsum(state.point - ends.x, normal, "b d, b d -> b")
        length = xp.where(there, reach, 0 * reach) / xp.where(there, slope, xp.ones_like(slope))
        turned = problem.inside(ends.x + rearrange(length, "b -> b 1") * way)
        fooled = problem.fooled(backend.forward(problem.f, turned), ends.label)
        size = norm(backend, turned - ends.x, p)
        nearer = fooled & (size < norm(backend, state.point - ends.x, p))
        return _Turned(xp.where(rearrange(nearer, "b -> b 1"), turned, state.point)), nearer

    x, label = problem.example
    state = _Turned(tightened(problem, point, found))
    for _ in range(TURNS):
        state = backend.iterate(turn, state, _Ends(x, label, point), found, steps=1)
        state = _Turned(tightened(problem, state.point, found))
    return state.point


class _Turned(NamedTuple):
    point: Array  # [b d]
