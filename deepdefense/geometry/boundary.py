"""One linearised decision boundary: the nearest of several, and the step onto it."""

from __future__ import annotations

import math
from typing import NamedTuple

from einops import rearrange, reduce

from deepdefense.geometry.arithmetic import divide
from deepdefense.geometry.norms import constant_norm, dual, norm, steepest_direction
from deepdefense.seam.contract import Array, Backend, Fold
from deepdefense.seam.validation import warn_if_probabilities

__all__ = [
    "Boundary",
    "Task",
    "boundary_step",
    "gap_cotangent",
    "linearised_step",
    "make_task",
    "nearest_boundary",
    "shortest_step",
]

# No step is shorter than this many roundings of the input. It matters only to an example that lies
# on the boundary, whose steps would otherwise all be zero: it is carried across.
SHORTEST_STEP = 16


class Boundary(NamedTuple):
    """A linearised boundary, per example: `distance`, `gap` [b], `normal` [b d], `contrast` [b k].

    Where there is none, the distance is infinite and the gap and normal are 0.
    """

    distance: Array
    gap: Array
    normal: Array
    contrast: Array


class Task(NamedTuple):
    """What stays fixed for an example during a search."""

    x: Array  # [b d]
    label: Array  # [b]
    leave: Array  # [b], True: leave the label, False: reach it
    targets: Array  # [b m], candidates
    shortest: Array  # [b], the least length of a step


def gap_cotangent(backend: Backend, target: Array, base: Array, logits: Array) -> Array:
    """The cotangent of the gap f_target - f_base: [...], [...] -> [... k]."""
    depth = logits.shape[1]
    return backend.one_hot(target, depth, logits) - backend.one_hot(base, depth, logits)


def nearest_boundary(
    backend: Backend,
    shift: Array,
    logits: Array,
    fold: Fold,
    contrasts: Array,
    p: float,
    *,
    from_x: bool = False,
) -> Boundary:
    """The nearest linearised boundary, of those between the classes that each contrast compares.

    l = argmin_j |g_j| / ||w_j||_q, the first of equals. A boundary whose normal vanishes, or whose
    gap or normal is not finite, is infinitely far. Logits and normals are those at x + shift, and
    so is the gap; or, `from_x`, what the linearisation makes of it at x: g_j - <w_j, shift>.

    Shapes: shift [b d], logits [b k], contrasts [b m k] -> `Boundary`. The fold passes the normals
    [b n d] in chunks, so that memory does not grow with their number.
    """
    xp = backend.xp

    def nearer(best: Boundary, contrasts: Array, normals: Array) -> Boundary:
        gaps = reduce(rearrange(logits, "b k -> b 1 k") * contrasts, "b n k -> b n", "sum")
        if from_x:
            gaps = gaps - reduce(normals * rearrange(shift, "b d -> b 1 d"), "b n d -> b n", "sum")
        # It waits for values: once for many gradients, and not for each of those that come alone.
        length = constant_norm if contrasts.shape[1] > 1 else norm
        slopes = length(backend, normals, dual(p))
        exists = (slopes > 0) & (slopes < math.inf)
        distances = divide(backend, xp.abs(gaps), slopes, where=exists, keep=True)
        # The comparison is false if the distance is not a number.
        distances = xp.where(exists & (distances < math.inf), distances, infinite)
        if contrasts.shape[1] == 1:
            some = Boundary(distances[:, 0], gaps[:, 0], normals[:, 0], contrasts[:, 0])
        else:
            first = xp.argmin(distances, 1)
            found = (backend.take(of, first) for of in (distances, gaps, normals, contrasts))
            some = Boundary(*found)
        closer = some.distance < best.distance
        row = rearrange(closer, "b -> b 1")
        return Boundary(
            distance=xp.where(closer, some.distance, best.distance),
            gap=xp.where(closer, some.gap, best.gap),
            normal=xp.where(row, some.normal, best.normal),
            contrast=xp.where(row, some.contrast, best.contrast),
        )

    zero = xp.zeros_like(logits[:, :1])
    infinite = zero + math.inf
    none = Boundary(infinite[:, 0], zero[:, 0], xp.zeros_like(shift), contrasts[:, 0])
    found: Boundary = fold(nearer, none, contrasts)
    return found


def boundary_step(
    backend: Backend, gap: Array, normal: Array, p: float, shortest: Array
) -> tuple[Array, Array]:
    """The shortest step r onto the hyperplane gap + <normal, r> = 0, and its slope ||normal||_q.

    r = |gap| / ||normal||_q u, with u the steepest direction of the normal and q dual to p. The
    derivative of |gap| at 0 is that of -gap, so that an example on the boundary is still pushed
    away from it; a step shorter than `shortest` is drawn out to it by a constant.

    Shapes: [b], [b d], [b] -> [b d], [b]. Where the normal vanishes both are zero.
    """
    xp = backend.xp
    slope, direction = steepest_direction(backend, normal, p)
    size = xp.where(gap > 0, gap, -gap)
    length = divide(backend, size, slope, where=slope > 0, keep=True)
    lacking = backend.stop_gradient(shortest - length)
    length = length + xp.where(lacking > 0, lacking, xp.zeros_like(lacking))
    return rearrange(length, "b -> b 1") * direction, slope


def shortest_step(backend: Backend, x: Array, p: float) -> Array:
    """The least length of a step for each example: [b d] -> [b]."""
    return SHORTEST_STEP * backend.epsilon(x) * norm(backend, x, p)


def make_task(
    backend: Backend, x: Array, clean: Array, label: Array | None, candidates: int, p: float
) -> tuple[Task, Array]:
    """Each example's errand by its clean logits [b k], and whether it is measurable [b].

    A right example is to leave its label (the predicted class if `label` is None) for any of the
    other candidates, which the clean logits rank once; a wrong one is to reach its label.
    """
    xp, depth = backend.xp, clean.shape[1]
    warn_if_probabilities(backend, clean)
    ranked = backend.rank(clean, min(candidates, depth))
    label = ranked[:, 0] if label is None else backend.index(label, depth, x)
    right = ranked[:, 0] == label
    targets = xp.where(rearrange(right, "b -> b 1"), ranked[:, 1:], rearrange(label, "b -> b 1"))
    task = Task(
        x=x, label=label, leave=right, targets=targets, shortest=shortest_step(backend, x, p)
    )
    return task, xp.all(xp.isfinite(x), 1) & xp.all(xp.isfinite(clean), 1)


def linearised_step(
    backend: Backend,
    task: Task,
    shift: Array,
    logits: Array,
    fold: Fold,
    p: float,
    *,
    from_x: bool = False,
) -> tuple[Array, Array, Array, Boundary]:
    """From x + shift, or `from_x` from x, onto the boundary that is nearest as seen from x + shift.

    A right example's base class is its label, a wrong one's the highest other class at the iterate.

    Shapes: shift [b d], logits [b k] -> step [b d], its slope and base [b], and the boundary.
    """
    xp = backend.xp
    own = backend.one_hot(task.label, logits.shape[1], logits)
    rival = xp.argmax(xp.where(own > 0, xp.zeros_like(logits) - math.inf, logits), 1)
    base = xp.where(task.leave, task.label, rival)
    contrasts = gap_cotangent(backend, task.targets, rearrange(base, "b -> b 1"), logits)
    nearest = nearest_boundary(backend, shift, logits, fold, contrasts, p, from_x=from_x)
    move, slope = boundary_step(backend, nearest.gap, nearest.normal, p, task.shortest)
    return move, slope, base, nearest
