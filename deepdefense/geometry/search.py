"""DeepFool's search for a decision boundary, for batches and any p-norm.

`search_boundary` is the loop of DeepFool (Moosavi-Dezfooli, Fawzi, Frossard, CVPR 2016). The attack
`deepfool` and the Deep Defense penalty share this loop.
"""

from __future__ import annotations

from typing import NamedTuple

from einops import rearrange, reduce, repeat

from deepdefense.geometry.boundary import (
    Boundary,
    Task,
    find_boundary_step,
    find_nearest_step,
    make_task,
)
from deepdefense.geometry.bounds import Box
from deepdefense.geometry.norms import norm
from deepdefense.seam.contract import Array, Backend, Fold, Forward

__all__ = ["SearchResult", "SearchSettings", "search_boundary"]

# A step that was clipped to the box is corrected at once, without new gradients, if its length is
# at most this share of the length of the perturbation so far. After such a short step, a new
# linearisation would change little.
CORRECTED_STEP = 0.1

# A correction makes the shift, lengthened by the share (1 - RESERVED_OVERSHOOT) * overshoot, end on
# the linearised boundary. The full overshoot then carries the example across the boundary.
RESERVED_OVERSHOOT = 0.1


class SearchSettings(NamedTuple):
    """The settings that `search_boundary` and `find_nearest_point` share."""

    p: float  # order of the norm in which distances and steps are measured
    steps: int  # largest number of steps for one example
    overshoot: float  # how far to go past the boundary, as a share of the perturbation
    candidates: int  # number of classes considered, the base class included


class SearchResult(NamedTuple):
    """The state of a search after each step, and the result of the search.

    t is the largest number of steps.
    """

    shift: Array  # [b d], the perturbation so far, without overshoot
    length: Array  # [b], the p-norm of the shift
    slope: Array  # [b], ||w||_q for the normal w of the last step
    steps: Array  # [b], the number of steps
    success: Array  # [b], whether the example, with overshoot, is across the boundary
    bases: Array  # [b t], the base class of each step
    targets: Array  # [b t], the target class of each step


def search_boundary(
    backend: Backend,
    f: Forward,
    x: Array,
    label: Array | None,
    settings: SearchSettings,
    *,
    box: Box | None = None,
    reach: bool = False,
) -> tuple[SearchResult, Array, Array]:
    """Move every example to a decision boundary, by steps onto the nearest linearised boundary.

    A correctly classified example leaves its label (the predicted class if `label` is None) for the
    nearest of the other candidate classes. A misclassified example does not move or, with `reach`,
    moves to its label. With a `box`, every iterate is clipped to the box.

    Shapes: x [b d], label [b] -> `SearchResult`, a mask [b] of the correctly classified examples,
    and a mask [b] of the examples with finite input and logits. Without finite input and logits, an
    example does not move and is not successful. All results are detached: no gradient flows through
    them.
    """
    xp = backend.xp
    p, steps, overshoot, candidates = settings
    x = backend.stop_gradient(x)
    task, finite = make_task(backend, x, backend.forward(f, x), label, candidates, p)

    def clip(point: Array) -> Array:
        return point if box is None else box.clip(point)

    def step(state: SearchResult, task: Task) -> tuple[SearchResult, Array]:
        point = task.x + state.shift
        logits, fold = backend.class_gradients(f, point)
        move, slope, base, nearest = find_nearest_step(
            backend, task, state.shift, logits, _mask_outward(box, point, fold, p), p
        )
        shift = state.shift + move
        if box is not None:
            shift = _clip_step(backend, box, task, state, shift, nearest, settings)
        # If the slope is almost 0, the step may overflow. Treat the example as without a boundary.
        length = norm(backend, shift, p)
        exists = (slope > 0) & xp.isfinite((1 + overshoot) * length)
        shift = xp.where(rearrange(exists, "b -> b 1"), shift, state.shift)
        logits = backend.forward(f, clip(task.x + (1 + overshoot) * shift))
        is_label = xp.argmax(logits, 1) == task.label
        success = (is_label != task.leave) & xp.all(xp.isfinite(logits), 1)
        slot = backend.one_hot(state.steps, steps, logits) > 0
        target = xp.argmax(nearest.contrast, 1)
        state = SearchResult(
            shift=shift,
            length=xp.where(exists, length, state.length),
            slope=slope,
            steps=xp.where(exists, state.steps + 1, state.steps),
            success=success,
            bases=xp.where(slot, rearrange(base, "b -> b 1"), state.bases),
            targets=xp.where(slot, rearrange(target, "b -> b 1"), state.targets),
        )
        return state, exists & ~success

    integer_zero = xp.zeros_like(task.label)
    start = SearchResult(
        shift=xp.zeros_like(x),
        length=xp.zeros_like(task.least_step),
        slope=xp.zeros_like(task.least_step),
        steps=integer_zero,
        success=finite & ~task.leave & (not reach),
        bases=repeat(integer_zero, "b -> b t", t=steps),
        targets=repeat(integer_zero, "b -> b t", t=steps),
    )
    active = finite & (task.leave | reach)
    return backend.iterate(step, start, task, active, steps=steps), task.leave, finite


def _mask_outward(box: Box | None, point: Array, fold: Fold, p: float) -> Fold:
    """Return a fold that, for p < 2, zeroes the gradient components that lead out of the box.

    A step for p < 2 moves mainly a few coordinates; if these are at their bounds, clipping would
    undo the whole step. For p >= 2 or without a box, return `fold` unchanged.
    """
    if box is None or p >= 2:
        return fold
    return lambda step, state, contrasts: fold(
        lambda state, chunk, normals: step(state, chunk, box.mask_outward_each(point, normals)),
        state,
        contrasts,
    )


def _clip_step(
    backend: Backend,
    box: Box,
    task: Task,
    state: SearchResult,
    shift: Array,
    plane: Boundary,
    settings: SearchSettings,
) -> Array:
    """Return the shift after clipping x + shift to the box, corrected if the step is short.

    `state.shift` is the shift before the step, and `shift` includes the step. A step is short if
    its length is at most CORRECTED_STEP * ||state.shift||_p. The correction has two parts:

    1. Lengthen the clipped shift by the share (1 - RESERVED_OVERSHOOT) * overshoot, clip again, and
       compute the gap of the linearised boundary `plane` that remains there.
    2. Add to the clipped shift the shortest step that closes this gap along the coordinates that
       are not at their bound, and clip the result.

    Shapes: shift [b d] -> [b d].
    """
    xp = backend.xp
    small = plane.distance <= CORRECTED_STEP * state.length
    shift = box.clip(task.x + shift) - task.x
    point = box.clip(task.x + (1 + (1 - RESERVED_OVERSHOOT) * settings.overshoot) * shift)
    gap = plane.gap + reduce(plane.normal * (point - task.x - state.shift), "b d -> b", "sum")
    zero = xp.zeros_like(gap)
    normal = box.mask_outward(point, plane.normal)
    rest = xp.where(small & (gap < 0), gap, zero)
    correction, _ = find_boundary_step(backend, rest, normal, settings.p, zero)
    return box.clip(task.x + shift + correction) - task.x
