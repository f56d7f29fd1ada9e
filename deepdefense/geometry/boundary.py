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
    "find_boundary_step",
    "find_nearest_boundary",
    "find_nearest_step",
    "gap_cotangent",
    "least_step",
    "make_task",
]

# A step is at least this many times the machine epsilon of ||x||_p. The limit matters only on a
# boundary, where every step would be zero: it carries the example across.
LEAST_STEP_EPSILONS = 16


class Boundary(NamedTuple):
    """The linearised boundary of each example.

    Where there is none, the distance is infinite and the gap and normal are 0.
    """

    distance: Array  # [b]
    gap: Array  # [b], the difference of the two logits
    normal: Array  # [b d], the gradient of the gap
    contrast: Array  # [b k], the two classes: +1 and -1


class Task(NamedTuple):
    """The constants of a search, per example."""

    x: Array  # [b d]
    label: Array  # [b]
    leave: Array  # [b], True: leave the label; False: reach it
    targets: Array  # [b m], candidate classes
    least_step: Array  # [b], the least length of a step


def gap_cotangent(backend: Backend, target: Array, base: Array, logits: Array) -> Array:
    """Return the cotangent of the gap f_target - f_base: [...], [...] -> [... k]."""
    depth = logits.shape[1]
    return backend.one_hot(target, depth, logits) - backend.one_hot(base, depth, logits)


def find_nearest_boundary(
    backend: Backend,
    shift: Array,
    logits: Array,
    fold: Fold,
    contrasts: Array,
    p: float,
    *,
    from_x: bool = False,
) -> Boundary:
    """Find the nearest of the linearised boundaries between the classes of each contrast.

    l = argmin_j |g_j| / ||w_j||_q, the first of equals. A boundary whose normal vanishes, or whose
    gap or normal is not finite, is infinitely far. Logits, normals w_j and gaps g_j are those at
    x + shift; with `from_x` the gap is the linearised one at x, g_j - <w_j, shift>.

    Shapes: shift [b d], logits [b k], contrasts [b m k] -> `Boundary`. The fold passes the normals
    [b n d] in chunks, so that memory does not grow with their number.
    """
    xp = backend.xp

    def keep_nearest(best: Boundary, contrasts: Array, normals: Array) -> Boundary:
        gaps = reduce(rearrange(logits, "b k -> b 1 k") * contrasts, "b n k -> b n", "sum")
        if from_x:
            gaps = gaps - reduce(normals * rearrange(shift, "b d -> b 1 d"), "b n d -> b n", "sum")
        # `constant_norm` synchronises with the device, so use it only for batched gradients.
        compute_norm = constant_norm if contrasts.shape[1] > 1 else norm
        slopes = compute_norm(backend, normals, dual(p))
        exists = (slopes > 0) & (slopes < math.inf)
        distances = divide(backend, xp.abs(gaps), slopes, where=exists, keep=True)
        # The comparison is false for NaN.
        distances = xp.where(exists & (distances < math.inf), distances, infinite)
        if contrasts.shape[1] == 1:
            chunk = Boundary(distances[:, 0], gaps[:, 0], normals[:, 0], contrasts[:, 0])
        else:
            first = xp.argmin(distances, 1)
            rows = (backend.take(each, first) for each in (distances, gaps, normals, contrasts))
            chunk = Boundary(*rows)
        closer = chunk.distance < best.distance
        row = rearrange(closer, "b -> b 1")
        return Boundary(
            distance=xp.where(closer, chunk.distance, best.distance),
            gap=xp.where(closer, chunk.gap, best.gap),
            normal=xp.where(row, chunk.normal, best.normal),
            contrast=xp.where(row, chunk.contrast, best.contrast),
        )

    zero = xp.zeros_like(logits[:, :1])
    infinite = zero + math.inf
    start = Boundary(infinite[:, 0], zero[:, 0], xp.zeros_like(shift), contrasts[:, 0])
    nearest: Boundary = fold(keep_nearest, start, contrasts)
    return nearest


def find_boundary_step(
    backend: Backend, gap: Array, normal: Array, p: float, least: Array
) -> tuple[Array, Array]:
    """Find the shortest step r onto the hyperplane gap + <normal, r> = 0, and its slope.

    r = |gap| / ||normal||_q u, with u the steepest direction of the normal and q dual to p; the
    slope is ||normal||_q. The derivative of |gap| at 0 is that of -gap, so that an example on the
    boundary is still pushed away from it. A constant lengthens a step shorter than `least` to it.

    Shapes: [b], [b d], [b] -> [b d], [b]. Where the normal vanishes both are zero.
    """
    xp = backend.xp
    slope, direction = steepest_direction(backend, normal, p)
    size = xp.where(gap > 0, gap, -gap)
    length = divide(backend, size, slope, where=slope > 0, keep=True)
    missing = backend.stop_gradient(least - length)
    length = length + xp.where(missing > 0, missing, xp.zeros_like(missing))
    return rearrange(length, "b -> b 1") * direction, slope


def least_step(backend: Backend, x: Array, p: float) -> Array:
    """Return the least length of a step for each example: [b d] -> [b]."""
    return LEAST_STEP_EPSILONS * backend.epsilon(x) * norm(backend, x, p)


def make_task(
    backend: Backend, x: Array, clean: Array, label: Array | None, candidates: int, p: float
) -> tuple[Task, Array]:
    """Make the task of each example from its clean logits [b k]; also return where both are finite.

    A correctly classified example leaves its label (the predicted class if `label` is None) for any
    of the other candidates, the classes of the highest clean logits. A misclassified one reaches
    its label.
    """
    xp, depth = backend.xp, clean.shape[1]
    warn_if_probabilities(backend, clean)
    ranked = backend.rank(clean, min(candidates, depth))
    label = ranked[:, 0] if label is None else backend.index(label, depth, x)
    correct = ranked[:, 0] == label
    targets = xp.where(rearrange(correct, "b -> b 1"), ranked[:, 1:], rearrange(label, "b -> b 1"))
    task = Task(
        x=x, label=label, leave=correct, targets=targets, least_step=least_step(backend, x, p)
    )
    return task, xp.all(xp.isfinite(x), 1) & xp.all(xp.isfinite(clean), 1)


def find_nearest_step(
    backend: Backend,
    task: Task,
    shift: Array,
    logits: Array,
    fold: Fold,
    p: float,
    *,
    from_x: bool = False,
) -> tuple[Array, Array, Array, Boundary]:
    """Find the step onto the boundary that is nearest as linearised at x + shift.

    The step leads from x + shift or, with `from_x`, from x. To leave a label, the base class is the
    label; to reach it, the base class is the highest other class at the iterate.

    Shapes: shift [b d], logits [b k] -> step [b d], its slope and base class [b], and the boundary.
    """
    xp = backend.xp
    is_label = backend.one_hot(task.label, logits.shape[1], logits)
    others = xp.where(is_label > 0, xp.zeros_like(logits) - math.inf, logits)
    base = xp.where(task.leave, task.label, xp.argmax(others, 1))
    contrasts = gap_cotangent(backend, task.targets, rearrange(base, "b -> b 1"), logits)
    nearest = find_nearest_boundary(backend, shift, logits, fold, contrasts, p, from_x=from_x)
    step, slope = find_boundary_step(backend, nearest.gap, nearest.normal, p, task.least_step)
    return step, slope, base, nearest
