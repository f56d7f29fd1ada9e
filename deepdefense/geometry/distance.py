"""The distance to the boundary as a function of the parameters: three ways to differentiate it.

Each takes the result of a search, all of it constant, and returns the length of the perturbation
without overshoot [b], differentiable in the model's parameters.
"""

from __future__ import annotations

from typing import NamedTuple

from einops import rearrange, reduce

from deepdefense.geometry.arithmetic import divide
from deepdefense.geometry.boundary import find_boundary_step, gap_cotangent, least_step
from deepdefense.geometry.norms import dual, norm
from deepdefense.geometry.search import SearchResult
from deepdefense.seam.contract import Array, Backend, Forward

__all__ = ["chord_distance", "implicit_distance", "unrolled_distance"]


class _Replay(NamedTuple):
    shift: Array  # [b d], differentiable
    step: Array  # [b], how many steps were replayed


class _ReplayTask(NamedTuple):
    x: Array  # [b d]
    steps: Array  # [b], how many steps to replay
    bases: Array  # [b t]
    targets: Array  # [b t]
    least_step: Array  # [b]


def unrolled_distance(
    backend: Backend, f: Forward, x: Array, found: SearchResult, *, p: float, steps: int
) -> Array:
    """Return ||sum of the steps||_p, each step a function of the parameters: [b].

    The search has chosen the classes without a graph. Only the chosen gap and normal of each step
    are computed again, with a graph: the same value and gradient as differentiating the search, at
    a fraction of the cost.
    """
    xp = backend.xp

    def step(state: _Replay, task: _ReplayTask) -> tuple[_Replay, Array]:
        logits, pull = backend.vjp(f, task.x + state.shift)
        contrast = _select_contrast(backend, task.bases, task.targets, state.step, logits)
        # An example without a step left gets a zero contrast: it stays in the graph, unmoved.
        due = rearrange(state.step < task.steps, "b -> b 1")
        contrast = xp.where(due, contrast, xp.zeros_like(contrast))
        gap = reduce(logits * contrast, "b k -> b", "sum")
        move, _ = find_boundary_step(backend, gap, pull(contrast), p, task.least_step)
        state = _Replay(state.shift + move, state.step + 1)
        return state, state.step < task.steps

    replayed = backend.iterate(
        step,
        _Replay(xp.zeros_like(x), xp.zeros_like(found.steps)),
        _ReplayTask(x, found.steps, found.bases, found.targets, least_step(backend, x, p)),
        found.steps >= 0,
        steps=steps,
        differentiable=True,
    )
    return norm(backend, replayed.shift, p)


def implicit_distance(
    backend: Backend, f: Forward, x: Array, found: SearchResult, *, p: float
) -> Array:
    """Return the distance found, with the gradient of the envelope theorem: [b].

    At b = x + r held fixed, d||r||_p = -dg(b) / ||grad g(b)||_q: one forward and one backward
    pass, no second derivative.
    """
    xp = backend.xp
    logits, pull = backend.vjp(f, x + found.shift, twice=False)
    last = xp.maximum(found.steps - 1, xp.zeros_like(found.steps))
    contrast = _select_contrast(backend, found.bases, found.targets, last, logits)
    gap = reduce(logits * contrast, "b k -> b", "sum")
    slope = norm(backend, pull(contrast), dual(p))
    return found.length - _differential(backend, gap, slope, found.steps > 0)


def chord_distance(
    backend: Backend, f: Forward, x: Array, found: SearchResult, *, overshoot: float
) -> tuple[Array, Array]:
    """Return the distance found by `find_nearest_point`, corrected by one step of the chord method.

    With b = x + r the point found, and w the normal of the last step, used once more,

        length = ||r||_p - g(b) / ||w||_q,    d length = -dg(b) / ||w||_q

    with b held fixed. With one step of the search this costs two forward passes and one backward
    pass towards the input, and no second derivative. g is negative on the side of x. If the length
    is not positive, because the step ended far beyond the boundary, it is ||r||_p instead.

    Returns: the length [b], differentiable, and whether the example is across [b]: the overshoot
    covers what is left of the distance after the last step.
    """
    xp = backend.xp
    logits = f(x + found.shift)
    contrast = gap_cotangent(backend, found.targets[:, 0], found.bases[:, 0], logits)
    gap = reduce(logits * contrast, "b k -> b", "sum")
    constant_gap = backend.stop_gradient(gap)
    usable = (found.steps > 0) & xp.isfinite(constant_gap)
    rest = divide(backend, -constant_gap, found.slope, where=usable)
    length = xp.where(found.length + rest > 0, found.length + rest, found.length)
    across = usable & (rest <= overshoot * found.length)
    return length - _differential(backend, gap, found.slope, usable), across


def _differential(backend: Backend, gap: Array, slope: Array, moved: Array) -> Array:
    """Return 0 with the gradient of gap / slope where a slope exists: [b], [b], [b] -> [b]."""
    usable = moved & (slope > 0) & backend.xp.isfinite(slope)
    return divide(backend, gap - backend.stop_gradient(gap), slope, where=usable)


def _select_contrast(
    backend: Backend, bases: Array, targets: Array, step: Array, logits: Array
) -> Array:
    """Return the cotangent of the gap that a step closed: [b t], [b t], [b] -> [b k]."""
    xp = backend.xp
    slot = backend.one_hot(step, bases.shape[1], logits) > 0
    base, target = (
        reduce(xp.where(slot, classes, xp.zeros_like(classes)), "b t -> b", "sum")
        for classes in (bases, targets)
    )
    return gap_cotangent(backend, target, base, logits)
