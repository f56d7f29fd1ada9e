"""A search for the boundary point that is nearest to the example, in any p-norm, within bounds.

`DeepDefense` with the gradient "chord" uses this search.
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

# How many times a step that was clipped to the box is extended towards the linearised boundary. On
# MNIST images, a few millionths of the distance to that boundary remain after three extensions.
EXTENSIONS = 3


class _NearestPoint(NamedTuple):
    """The state of the search after each step."""

    shift: Array  # [b d], the last step, which starts at x
    length: Array  # [b], the p-norm of the shift
    slope: Array  # [b], the change of the gap per unit of length of the last step
    base: Array  # [b], the base class of the last step
    target: Array  # [b], the target class of the last step
    steps: Array  # [b], the number of steps so far


def find_nearest_point(
    backend: Backend,
    f: Forward,
    x: Array,
    label: Array,
    settings: SearchSettings,
    *,
    box: Box | None = None,
) -> tuple[SearchResult, Array, Array]:
    """Approach the boundary point that is nearest to each example, by steps that all start at x.

    Let r_i be the perturbation after i steps, with r_0 = 0. Of all boundaries linearised at
    x + r_i, the step uses the one nearest to x. Let g be the gap between its two classes, and w_i
    the gradient of g at x + r_i. The step replaces r_i by

        r_{i+1} = argmin { ||r||_p : g(x + r_i) + <w_i, r - r_i> = 0, x + r in the box }.

    A misclassified example moves to its label.

    Returns: the same three values as `search_boundary`. But in the `SearchResult`, `success` is
    False for every example, because the search does not check whether it crossed the boundary.
    `bases` and `targets` [b 1] hold only the classes of the last step. With a box, `slope` is
    |dg| / d||r||_p, the change of the gap per unit of distance.

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

    integer_zero = xp.zeros_like(task.label)
    zero = xp.zeros_like(task.least_step)
    start = _NearestPoint(xp.zeros_like(x), zero, zero, integer_zero, integer_zero, integer_zero)
    state, active = move(start, task, clean, fold)
    # The first step also moved examples whose input is not finite but whose logits are. Undo this.
    state = state._replace(
        shift=xp.where(rearrange(finite, "b -> b 1"), state.shift, start.shift),
        length=xp.where(finite, state.length, zero),
        steps=xp.where(finite, state.steps, integer_zero),
    )
    if steps > 1:
        state = backend.iterate(step, state, task, active & finite, steps=steps - 1)
    result = SearchResult(
        shift=state.shift,
        length=state.length,
        slope=state.slope,
        steps=state.steps,
        success=integer_zero > 0,
        bases=rearrange(state.base, "b -> b 1"),
        targets=rearrange(state.target, "b -> b 1"),
    )
    return result, task.leave, finite


def _extend_within(
    backend: Backend, box: Box, x: Array, step: Array, plane: Boundary, p: float
) -> tuple[Array, Array]:
    """Clip a step from x to the box, and extend it; return the step and the slope at its end.

    Let w be the normal of the linearised boundary `plane`. A coordinate is free if w does not lead
    out of the box along it. `EXTENSIONS` times, move the free coordinates to close the part of the
    gap that clipping left, and clip again. Let r be the result. The slope at its end is

        ||v||_q / <grad ||r||_p, u>,

    with v the normal w restricted to the free coordinates, and u the steepest direction of v. The
    slope is 0 if no coordinate is free.

    Shapes: x [b d], step [b d] -> step [b d], slope [b].
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
