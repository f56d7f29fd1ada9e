"""The nearest of several linearised decision boundaries, and the shortest step onto it."""

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

# The least length of a step from x, in units of (machine epsilon) * ||x||_p. It matters only for an
# example on a boundary, whose step would otherwise have length 0 and never cross the boundary.
LEAST_STEP_EPSILONS = 16


class Boundary(NamedTuple):
    """The nearest linearised boundary of each example, as `find_nearest_boundary` returns it.

    If an example has no boundary, its distance is infinite, and its gap and normal are 0.
    """

    distance: Array  # [b], |gap| / ||normal||_q
    gap: Array  # [b], the logit of the target class minus the logit of the base class
    normal: Array  # [b d], the gradient of the gap
    contrast: Array  # [b k], +1 for the target class, -1 for the base class, 0 for the others


class Task(NamedTuple):
    """The data of each example that stay constant during a search."""

    x: Array  # [b d], the example
    label: Array  # [b]
    leave: Array  # [b], True: the search is to leave the label; False: it is to reach the label
    targets: Array  # [b m], the classes whose boundaries with the base class are compared
    least_step: Array  # [b], the least length of a step


def gap_cotangent(backend: Backend, target: Array, base: Array, logits: Array) -> Array:
    """Return the derivative of the gap f_target - f_base in the logits.

    The derivative is 1 for the target class, -1 for the base class, and 0 for every other class.

    Shapes: target [...], base [...] -> [... k], where k is the number of classes.
    """
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
    """Return each example's nearest linearised boundary among the boundaries of m pairs of classes.

    Each of the m contrasts names one pair of classes (see `gap_cotangent`). For pair j, the gap g_j
    is the difference of the two logits at x + shift, and the normal w_j is the gradient of g_j
    there. The nearest boundary has the index (the first, if several are equally near)

        l = argmin_j |g_j| / ||w_j||_q.

    With `from_x`, distances are measured from x instead of x + shift: each g_j is first replaced by
    g_j - <w_j, shift>, the linearised gap at x. A boundary whose normal vanishes, or whose gap or
    normal is not finite, counts as infinitely far.

    `logits` and `fold` are the results of `Backend.class_gradients` at x + shift.

    Shapes: shift [b d], logits [b k], contrasts [b m k] -> `Boundary`.
    """
    xp = backend.xp

    def keep_nearest(best: Boundary, contrasts: Array, normals: Array) -> Boundary:
        gaps = reduce(rearrange(logits, "b k -> b 1 k") * contrasts, "b n k -> b n", "sum")
        if from_x:
            gaps = gaps - reduce(normals * rearrange(shift, "b d -> b 1 d"), "b n d -> b n", "sum")
        # `constant_norm` saves memory but waits for the device, so it is used only for chunks of
        # several normals.
        compute_norm = constant_norm if contrasts.shape[1] > 1 else norm
        slopes = compute_norm(backend, normals, dual(p))
        exists = (slopes > 0) & (slopes < math.inf)
        distances = divide(backend, xp.abs(gaps), slopes, where=exists, keep=True)
        # The comparison with inf is False for NaN, so that NaN also becomes an infinite distance.
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
    """Return the shortest step r onto the hyperplane gap + <normal, r> = 0, and the slope.

    The gap is negative on the side of the base class, where r = (|gap| / ||normal||_q) u, with u
    the steepest direction of the normal, and q dual to p. The slope is ||normal||_q. At gap = 0,
    the derivative of -gap is used, so that training also pushes an example on the boundary away
    from it. A step shorter than `least` is lengthened to `least`; no gradient flows through the
    added length.

    Shapes: gap [b], normal [b d], least [b] -> step [b d], slope [b]. For a normal of 0 both are 0.
    """
    xp = backend.xp
    slope, direction = steepest_direction(backend, normal, p)
    size = xp.where(gap > 0, gap, -gap)
    length = divide(backend, size, slope, where=slope > 0, keep=True)
    missing = backend.stop_gradient(least - length)
    length = length + xp.where(missing > 0, missing, xp.zeros_like(missing))
    return rearrange(length, "b -> b 1") * direction, slope


def least_step(backend: Backend, x: Array, p: float) -> Array:
    """Return the least length [b] of a step from each example (see `LEAST_STEP_EPSILONS`)."""
    return LEAST_STEP_EPSILONS * backend.epsilon(x) * norm(backend, x, p)


def make_task(
    backend: Backend, x: Array, clean: Array, label: Array | None, candidates: int, p: float
) -> tuple[Task, Array]:
    """Return the `Task` of a search, and a mask [b] of the examples with finite input and logits.

    The candidate classes are the `candidates` classes with the highest logits at x, `clean` [b k].
    The search moves a correctly classified example from its label (None: the predicted class) to
    any other candidate class, and a misclassified example to its label.
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
    """Return the shortest step onto the nearest of the boundaries linearised at x + shift.

    The step starts at x + shift or, with `from_x`, at x. The base class of an example that is to
    leave its label is the label. The base class of an example that is to reach its label is the
    class with the highest logit at x + shift among the other classes.

    Shapes: shift [b d], logits at x + shift [b k] -> step [b d], slope [b], base class [b], and the
    nearest `Boundary`.
    """
    xp = backend.xp
    is_label = backend.one_hot(task.label, logits.shape[1], logits)
    others = xp.where(is_label > 0, xp.zeros_like(logits) - math.inf, logits)
    base = xp.where(task.leave, task.label, xp.argmax(others, 1))
    contrasts = gap_cotangent(backend, task.targets, rearrange(base, "b -> b 1"), logits)
    nearest = find_nearest_boundary(backend, shift, logits, fold, contrasts, p, from_x=from_x)
    step, slope = find_boundary_step(backend, nearest.gap, nearest.normal, p, task.least_step)
    return step, slope, base, nearest
