"""How far the boundary is, as a function of the parameters: three ways to differentiate a distance.

Each takes what a search has found, all of it constant, and gives the length of the perturbation
without overshoot [b], differentiable in the model's parameters.
"""

from __future__ import annotations

from typing import NamedTuple

from einops import rearrange, reduce

from deepdefense.geometry.arithmetic import divide
from deepdefense.geometry.boundary import boundary_step, gap_cotangent, shortest_step
from deepdefense.geometry.norms import dual, norm
from deepdefense.geometry.search import SearchResult
from deepdefense.seam.contract import Array, Backend, Forward

__all__ = ["chord_distance", "implicit_distance", "unrolled_distance"]


class _Replay(NamedTuple):
    shift: Array  # [b d], differentiable
    step: Array  # [b], how many were replayed


class _ReplayTask(NamedTuple):
    x: Array  # [b d]
    steps: Array  # [b], how many to replay
    bases: Array  # [b t]
    targets: Array  # [b t]
    shortest: Array  # [b]


def unrolled_distance(
    backend: Backend, f: Forward, x: Array, found: SearchResult, *, p: float, steps: int
) -> Array:
    """||sum of the steps||_p, each step a function of the parameters: [b].

    The search has chosen the classes without a graph. Only the chosen gap and normal of each
    step are replayed with one: the same value and gradient, at a fraction of the cost.
    """

    def step(state: _Replay, walk: _ReplayTask) -> tuple[_Replay, Array]:
        logits, pull = backend.vjp(f, walk.x + state.shift)
        direction = _chosen_contrast(backend, walk.bases, walk.targets, state.step, logits)
        # Without a step to take, a zero direction keeps the example in the graph, at rest.
        due = rearrange(state.step < walk.steps, "b -> b 1")
        direction = backend.xp.where(due, direction, backend.xp.zeros_like(direction))
        gap = reduce(logits * direction, "b k -> b", "sum")
        move, _ = boundary_step(backend, gap, pull(direction), p, walk.shortest)
        taken = _Replay(state.shift + move, state.step + 1)
        return taken, taken.step < walk.steps

    replayed = backend.iterate(
        step,
        _Replay(backend.xp.zeros_like(x), backend.xp.zeros_like(found.steps)),
        _ReplayTask(x, found.steps, found.bases, found.targets, shortest_step(backend, x, p)),
        found.steps >= 0,
        steps=steps,
        differentiable=True,
    )
    return norm(backend, replayed.shift, p)


def implicit_distance(
    backend: Backend, f: Forward, x: Array, found: SearchResult, *, p: float
) -> Array:
    """The distance found, with the gradient of the envelope theorem: [b].

    At b = x + r held fixed, d||r||_p = -dg(b) / ||grad g(b)||_q: one forward and one backward
    pass, no second derivative.
    """
    xp = backend.xp
    logits, pull = backend.vjp(f, x + found.shift, twice=False)
    last = xp.maximum(found.steps - 1, xp.zeros_like(found.steps))
    direction = _chosen_contrast(backend, found.bases, found.targets, last, logits)
    gap = reduce(logits * direction, "b k -> b", "sum")
    slope = norm(backend, pull(direction), dual(p))
    nearer = _towards(backend, gap, slope, found.steps > 0)
    return found.length - nearer


def chord_distance(
    backend: Backend, f: Forward, x: Array, found: SearchResult, *, overshoot: float
) -> tuple[Array, Array]:
    """The distance by the steps of `find_nearest_point`, and one more by the chord method: [b].

    With b = x + r, where the last step has landed, and w the normal it went along, kept,

        length = ||r||_p - g(b) / ||w||_q,    d length = -dg(b) / ||w||_q

    with b held fixed: with one step two forward passes and one backward pass towards the input,
    none of them differentiated twice. g is negative on the side of x. A length that is not
    positive, after a step far beyond the boundary, is ||r||_p instead.

    Returns: the length [b], differentiable, and whether the overshoot makes up for what is left of
    the way after the step, so that it is across [b].
    """
    xp = backend.xp
    logits = f(x + found.shift)
    direction = gap_cotangent(backend, found.targets[:, 0], found.bases[:, 0], logits)
    gap = reduce(logits * direction, "b k -> b", "sum")
    rest = backend.stop_gradient(gap)
    usable = (found.steps > 0) & xp.isfinite(rest)
    rest = divide(backend, -rest, found.slope, where=usable)
    step = found.length
    length = xp.where(step + rest > 0, step + rest, step)
    across = usable & (rest <= overshoot * step)
    return length - _towards(backend, gap, found.slope, usable), across


def _towards(backend: Backend, gap: Array, slope: Array, moved: Array) -> Array:
    """0, with the gradient of gap / slope where there is a slope: [b], [b], [b] -> [b]."""
    xp = backend.xp
    usable = moved & (slope > 0) & xp.isfinite(slope)
    return divide(backend, gap - backend.stop_gradient(gap), slope, where=usable)


def _chosen_contrast(
    backend: Backend, bases: Array, targets: Array, step: Array, logits: Array
) -> Array:
    """The cotangent of the gap that a given step went for: [b t], [b t], [b] -> [b k]."""
    xp = backend.xp
    slot = backend.one_hot(step, bases.shape[1], logits) > 0
    base, target = (
        reduce(xp.where(slot, trace, xp.zeros_like(trace)), "b t -> b", "sum")
        for trace in (bases, targets)
    )
    return gap_cotangent(backend, target, base, logits)
