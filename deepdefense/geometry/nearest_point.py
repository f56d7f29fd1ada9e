"""The nearest point of a decision boundary within the bounds, in any p-norm.

`DeepDefense.fast` uses this search. Every step starts from x again, stays within the box if there
is one, and is not verified by a forward pass.
"""

from __future__ import annotations

from typing import NamedTuple

from einops import rearrange, reduce

from deepdefense.geometry.arithmetic import divide
from deepdefense.geometry.boundary import (
    Boundary,
    Task,
    find_boundary_step,
    find_nearest_step,
    make_task,
)
from deepdefense.geometry.bounds import Box
from deepdefense.geometry.norms import dual, norm, steepest_direction
from deepdefense.geometry.search import SearchResult, SearchSettings
from deepdefense.seam.contract import Array, Backend, Fold, Forward

__all__ = ["find_nearest_point"]

# How often a step that the box shortened is extended. On MNIST images one extension leaves a
# hundredth of the distance to the plane at most, and three leave some millionths.
EXTENSIONS = 3


class _NearestPoint(NamedTuple):
    shift: Array  # [b d]
    length: Array  # [b], its p-norm
    slope: Array  # [b], of the last step's normal
    base: Array  # [b], the base class of the last step
    target: Array  # [b], the class on the other side of its boundary
    steps: Array  # [b]


def find_nearest_point(
    backend: Backend,
    f: Forward,
    x: Array,
    label: Array,
    settings: SearchSettings,
    *,
    box: Box | None = None,
) -> tuple[SearchResult, Array, Array]:
    """Approach the nearest point of a boundary by steps that all start from x, none verified.

        r_{i+1} = argmin { ||r||_p : g(x + r_i) + <w_i, r - r_i> = 0, x + r in the box },  r_0 = 0

    The first step is that of `search_boundary`. A later step leads from x to the plane that
    linearises the boundary at x + r_i; one of `search_boundary` leads there from x + r_i, and its
    steps add up to a longer path. As with `reach` there, a misclassified example moves to its
    label. The first step reuses the gradients of the clean logits, so a step costs one forward pass
    and a backward pass for each candidate.

    Returns what `search_boundary` returns, but `success` is False throughout, and `bases` and
    `targets` [b 1] are those of the last step. Within a box, `slope` is |dg| / d||r||_p, the change
    of the gap as the distance grows.

    Source: Hasofer and Lind (1974), "Exact and invariant second-moment code format"; Rackwitz and
    Fiessler (1978), "Structural reliability under combined random load sequences".
    """
    xp = backend.xp
    p, steps, overshoot, candidates = settings
    x = backend.stop_gradient(x)
    clean, fold = backend.class_gradients(f, x)
    task, finite = make_task(backend, x, clean, label, candidates, p)

    def move(
        state: _NearestPoint, task: Task, logits: Array, fold: Fold
    ) -> tuple[_NearestPoint, Array]:
        shift, slope, base, nearest = find_nearest_step(
            backend, task, state.shift, logits, fold, p, from_x=True
        )
        if box is not None:
            shift, slope = _extend_within(backend, box, task.x, shift, nearest, p)
        length = norm(backend, shift, p)
        exists = (slope > 0) & xp.isfinite((1 + overshoot) * length)
        state = _NearestPoint(
            shift=xp.where(rearrange(exists, "b -> b 1"), shift, state.shift),
            length=xp.where(exists, length, state.length),
            slope=xp.where(exists, slope, state.slope),
            base=xp.where(exists, base, state.base),
            target=xp.where(exists, xp.argmax(nearest.contrast, 1), state.target),
            steps=xp.where(exists, state.steps + 1, state.steps),
        )
        return state, exists

    def step(state: _NearestPoint, task: Task) -> tuple[_NearestPoint, Array]:
        logits, fold = backend.class_gradients(f, task.x + state.shift)
        return move(state, task, logits, fold)

    none = xp.zeros_like(task.label)
    zero = xp.zeros_like(task.least_step)
    start = _NearestPoint(xp.zeros_like(x), zero, zero, none, none, none)
    state, active = move(start, task, clean, fold)
    # The first step also moved examples that are not finite but have finite logits: undo that.
    state = state._replace(
        shift=xp.where(rearrange(finite, "b -> b 1"), state.shift, start.shift),
        length=xp.where(finite, state.length, zero),
        steps=xp.where(finite, state.steps, none),
    )
    if steps > 1:
        state = backend.iterate(step, state, task, active & finite, steps=steps - 1)
    result = SearchResult(
        shift=state.shift,
        length=state.length,
        slope=state.slope,
        steps=state.steps,
        success=none > 0,
        bases=rearrange(state.base, "b -> b 1"),
        targets=rearrange(state.target, "b -> b 1"),
    )
    return result, task.leave, finite


def _extend_within(
    backend: Backend, box: Box, x: Array, step: Array, plane: Boundary, p: float
) -> tuple[Array, Array]:
    """Find the shortest step from x onto the plane within the box, and its slope: [b d], [b].

    Clipping a step leaves a part of the gap. Coordinates that are not at their bound make up for
    it: they move as if there were no box and the gap were larger. For a gap that is larger still,
    they would move on, and ||r||_p would grow by <grad ||r||_p, u> / ||w||_q of it, with w the
    normal and u the steepest direction among them. The slope is the inverse of that growth, and 0
    if all coordinates are at their bound.
    """
    xp = backend.xp
    distance = xp.abs(plane.gap)
    zero = xp.zeros_like(distance)
    point = box.clip(x + step)
    for _ in range(EXTENSIONS):
        rest = distance - reduce(plane.normal * (point - x), "b d -> b", "sum")
        rest = xp.where(rest > 0, rest, zero)
        normal = box.mask_outward(point, plane.normal)
        point = box.clip(point + find_boundary_step(backend, rest, normal, p, zero)[0])
    slope, direction = steepest_direction(backend, box.mask_outward(point, plane.normal), p)
    norm_gradient = steepest_direction(backend, point - x, dual(p))[1]  # grad ||r||_p
    growth = reduce(norm_gradient * direction, "b d -> b", "sum")
    return point - x, divide(backend, slope, growth, where=growth > 0)
