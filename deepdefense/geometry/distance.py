"""Three functions that differentiate the distance to the boundary in the model's parameters.

Each function accepts a detached `SearchResult`, through which no gradient flows. It returns the
length [b] of the perturbation without overshoot, differentiable in the model's parameters.
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
    """The state of `unrolled_distance`, which repeats the steps of a search."""

    shift: Array  # [b d], the sum of the repeated steps, differentiable
    step: Array  # [b], how many steps have been repeated


class _ReplayTask(NamedTuple):
    """The examples of `unrolled_distance`, and the steps of the search that it repeats."""

    x: Array  # [b d]
    steps: Array  # [b], how many steps to repeat
    bases: Array  # [b t], the base class of each step
    targets: Array  # [b t], the target class of each step
    least_step: Array  # [b], the least length of a step


def unrolled_distance(
    backend: Backend, f: Forward, x: Array, result: SearchResult, *, p: float, steps: int
) -> Array:
    """Return ||sum of the steps||_p [b], differentiated through every step of the search.

    The search chose the two classes of each step without recording gradients. This function
    computes the gap and the normal of these two classes again, with gradients recorded. The value
    and its gradient are the same as if the whole search were differentiated.
    """
    xp = backend.xp

    def step(state: _Replay, task: _ReplayTask) -> tuple[_Replay, Array]:
        logits, pull = backend.vjp(f, task.x + state.shift)
        contrast = _select_contrast(backend, task.bases, task.targets, state.step, logits)
        # A contrast of 0 keeps an example without further steps in the graph but does not move it.
        due = rearrange(state.step < task.steps, "b -> b 1")
        contrast = xp.where(due, contrast, xp.zeros_like(contrast))
        gap = reduce(logits * contrast, "b k -> b", "sum")
        move, _ = find_boundary_step(backend, gap, pull(contrast), p, task.least_step)
        state = _Replay(state.shift + move, state.step + 1)
        return state, state.step < task.steps

    replayed = backend.iterate(
        step,
        _Replay(xp.zeros_like(x), xp.zeros_like(result.steps)),
        _ReplayTask(x, result.steps, result.bases, result.targets, least_step(backend, x, p)),
        result.steps >= 0,
        steps=steps,
        differentiable=True,
    )
    return norm(backend, replayed.shift, p)


def implicit_distance(
    backend: Backend, f: Forward, x: Array, result: SearchResult, *, p: float
) -> Array:
    """Return the distance [b] that the search found, with its gradient by the envelope theorem.

    Let r be the perturbation that the search found, b = x + r the boundary point, and g the gap
    between the two classes of the search's last step. With b held fixed,

        d||r||_p = -dg(b) / ||grad g(b)||_q,

    where d is the derivative in the model's parameters and grad the gradient in the input.
    """
    xp = backend.xp
    logits, pull = backend.vjp(f, x + result.shift, twice=False)
    last = xp.maximum(result.steps - 1, xp.zeros_like(result.steps))
    contrast = _select_contrast(backend, result.bases, result.targets, last, logits)
    gap = reduce(logits * contrast, "b k -> b", "sum")
    slope = norm(backend, pull(contrast), dual(p))
    return result.length - _differential(backend, gap, slope, result.steps > 0)


def chord_distance(
    backend: Backend, f: Forward, x: Array, result: SearchResult, *, overshoot: float
) -> tuple[Array, Array]:
    """Return the distance found by `find_nearest_point`, corrected by one step of the chord method.

    Let r be the perturbation that the search found, and b = x + r. Let g be the gap between the two
    classes of the search's last step, negative on the side of x, and w the normal of that step:

        length = ||r||_p - g(b) / ||w||_q,    d length = -dg(b) / ||w||_q.

    Here d is the derivative in the model's parameters, with b and w held fixed. With bounds,
    `result.slope` replaces ||w||_q. A length that is not positive is replaced by ||r||_p.

    Returns: the differentiable length [b], and a mask [b] of the examples for which
    -g(b) / ||w||_q <= overshoot * ||r||_p, so that the overshoot should cross the boundary.
    """
    xp = backend.xp
    logits = f(x + result.shift)
    contrast = gap_cotangent(backend, result.targets[:, 0], result.bases[:, 0], logits)
    gap = reduce(logits * contrast, "b k -> b", "sum")
    constant_gap = backend.stop_gradient(gap)
    usable = (result.steps > 0) & xp.isfinite(constant_gap)
    rest = divide(backend, -constant_gap, result.slope, where=usable)
    length = xp.where(result.length + rest > 0, result.length + rest, result.length)
    across = usable & (rest <= overshoot * result.length)
    return length - _differential(backend, gap, result.slope, usable), across


def _differential(backend: Backend, gap: Array, slope: Array, moved: Array) -> Array:
    """Return zeros with the gradient of gap / slope, where the slope is held fixed.

    Examples that did not move, or whose slope is not positive and finite, have gradient 0.

    Shapes: gap [b], slope [b], the mask moved [b] -> [b].
    """
    usable = moved & (slope > 0) & backend.xp.isfinite(slope)
    return divide(backend, gap - backend.stop_gradient(gap), slope, where=usable)


def _select_contrast(
    backend: Backend, bases: Array, targets: Array, step: Array, logits: Array
) -> Array:
    """Return the contrast (`gap_cotangent`) of the two classes of step `step`, counted from 0.

    Shapes: bases [b t], targets [b t], step [b] -> [b k].
    """
    xp = backend.xp
    slot = backend.one_hot(step, bases.shape[1], logits) > 0
    base, target = (
        reduce(xp.where(slot, classes, xp.zeros_like(classes)), "b t -> b", "sum")
        for classes in (bases, targets)
    )
    return gap_cotangent(backend, target, base, logits)
