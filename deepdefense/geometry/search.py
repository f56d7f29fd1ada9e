"""The walk to a decision boundary, by steps onto the nearest linearised one, in any p-norm.

`search_boundary` is the loop of DeepFool (Moosavi-Dezfooli, Fawzi, Frossard, CVPR 2016), batched.
The attack and the Deep Defense penalty share it. The penalty also reaches the true label of a
misclassified example by it. `deepdefense.geometry.nearest_point` is another search with the same
steps.
"""

from __future__ import annotations

from typing import NamedTuple

from einops import rearrange, reduce, repeat

from deepdefense.geometry.boundary import (
    Boundary,
    Task,
    boundary_step,
    linearised_step,
    make_task,
)
from deepdefense.geometry.bounds import Box
from deepdefense.geometry.norms import norm
from deepdefense.seam.contract import Array, Backend, Fold, Forward

__all__ = ["SearchResult", "search_boundary"]

# What a bound cuts off a step is made up for if the step is no longer than this share of the way so
# far: the next linearisation would differ little from this one. More of it saves more of them, and
# what is made up for makes the way longer.
NEARLY = 0.1


# The share of the overshoot that is kept for carrying such an example across.
ACROSS = 0.1


class SearchResult(NamedTuple):
    """Where a search has come to, per example; t is the cap on the steps.

    `shift` [b d]: the sum of the steps, without overshoot; `length` [b]: its p-norm; `slope` [b]:
    ||w||_q of the last step's normal; `steps`, `success` [b]; `bases` and `targets` [b t]: the two
    classes whose boundary each step went for.
    """

    shift: Array
    length: Array
    slope: Array
    steps: Array
    success: Array
    bases: Array
    targets: Array


def search_boundary(
    backend: Backend,
    f: Forward,
    x: Array,
    label: Array | None,
    *,
    p: float,
    steps: int,
    overshoot: float,
    candidates: int,
    box: Box | None = None,
    reach: bool = False,
) -> tuple[SearchResult, Array, Array]:
    """Walk every example to a decision boundary by steps onto the nearest linearised one.

    A right example leaves its label (the predicted class if `label` is None) for the nearest of
    the other candidates. A wrong one stays where it is or, with `reach`, walks to its label.
    Points stay in the `box`, if there is one: each is moved to its nearest point there.

    Shapes: x [b d], label [b] -> `SearchResult`, right [b], finite [b]. An example whose input or
    logits are not finite is neither moved nor successful. All results are constants.
    """
    xp = backend.xp
    x = backend.stop_gradient(x)
    task, finite = make_task(backend, x, backend.forward(f, x), label, candidates, p)

    def within(point: Array) -> Array:
        return point if box is None else box.clip(point)

    def step(state: SearchResult, task: Task) -> tuple[SearchResult, Array]:
        point = task.x + state.shift
        logits, fold = backend.class_gradients(f, point)
        move, slope, base, nearest = linearised_step(
            backend, task, state.shift, logits, _kept_in(box, point, fold, p), p
        )
        shift = state.shift + move
        if box is not None:
            shift = _within(backend, box, task, state, shift, nearest, p, overshoot)
        # Where the slope is next to nothing the step may overflow: there is no boundary in sight.
        length = norm(backend, shift, p)
        exists = (slope > 0) & xp.isfinite((1 + overshoot) * length)
        shift = xp.where(rearrange(exists, "b -> b 1"), shift, state.shift)
        logits = backend.forward(f, within(task.x + (1 + overshoot) * shift))
        success = ((xp.argmax(logits, 1) == task.label) != task.leave) & xp.all(
            xp.isfinite(logits), 1
        )
        slot = backend.one_hot(state.steps, steps, logits) > 0
        taken = SearchResult(
            shift=shift,
            length=xp.where(exists, length, state.length),
            slope=slope,
            steps=xp.where(exists, state.steps + 1, state.steps),
            success=success,
            bases=xp.where(slot, rearrange(base, "b -> b 1"), state.bases),
            targets=xp.where(
                slot, rearrange(xp.argmax(nearest.contrast, 1), "b -> b 1"), state.targets
            ),
        )
        return taken, exists & ~success

    none = xp.zeros_like(task.label)
    start = SearchResult(
        shift=xp.zeros_like(x),
        length=xp.zeros_like(task.shortest),
        slope=xp.zeros_like(task.shortest),
        steps=none,
        success=finite & ~task.leave & (not reach),
        bases=repeat(none, "b -> b t", t=steps),
        targets=repeat(none, "b -> b t", t=steps),
    )
    active = finite & (task.leave | reach)
    return backend.iterate(step, start, task, active, steps=steps), task.leave, finite


def _kept_in(box: Box | None, point: Array, fold: Fold, p: float) -> Fold:
    """For p < 2, gradients without what leads out of the box.

    Such a step goes along few coordinates, for p = 1 along one, and where those are at their bound
    a search would stand still. For p >= 2 it goes on with the others.
    """
    if box is None or p >= 2:
        return fold
    return lambda step, state, contrasts: fold(
        lambda state, some, normals: step(state, some, box.mask_outward_each(point, normals)),
        state,
        contrasts,
    )


def _within(
    backend: Backend,
    box: Box,
    task: Task,
    state: SearchResult,
    shift: Array,
    plane: Boundary,
    p: float,
    overshoot: float,
) -> Array:
    """Where a step that would come to x + shift comes to in the box: [b d] -> [b d], without x.

    What a bound cuts off leaves it short of the plane, and the search goes on from there. After a
    small step (`NEARLY`) it need not: the step goes on once, the shortest way among coordinates
    that are not at their bound, until all of the overshoot but the last (`ACROSS`) meets the plane.
    """
    xp = backend.xp
    small = plane.distance <= NEARLY * state.length
    shift = box.clip(task.x + shift) - task.x
    tried = box.clip(task.x + (1 + (1 - ACROSS) * overshoot) * shift)
    gap = plane.gap + reduce(plane.normal * (tried - task.x - state.shift), "b d -> b", "sum")
    none = xp.zeros_like(gap)
    free = box.mask_outward(tried, plane.normal)
    more, _ = boundary_step(backend, xp.where(small & (gap < 0), gap, none), free, p, none)
    return box.clip(task.x + shift + more) - task.x
