"""The last stage of minimum-norm attacks: move a point that fools the model nearer to its example.

The stage bisects the segment between the example and the point, to end close to the boundary. Then
it projects the example onto the hyperplane that is tangent to the boundary near this point.
"""

from __future__ import annotations

from typing import NamedTuple

from einops import einsum, rearrange

from deepdefense.attacks.common.losses import margin
from deepdefense.attacks.common.problem import Example, Perturbation, Problem
from deepdefense.geometry.arithmetic import divide
from deepdefense.geometry.norms import norm, steepest_direction
from deepdefense.seam.contract import Array

__all__ = ["finish", "project_on_hyperplane"]

BISECTIONS = 10  # ten halvings locate the boundary to 1/1024 of the segment's length
PROJECTIONS = 4  # the largest number of projections
PROJECTION_OVERSHOOT = 1e-3  # share by which a projection is lengthened, to cross the boundary


class _Segment(NamedTuple):
    """The state of a bisection: positions on a segment from the example (0) to a point (1)."""

    low: Array  # [b], a position at which the model is not fooled
    high: Array  # [b], a position at which the model is fooled
    best: Array  # [b d], the point at `high`, exactly as the model was evaluated there


class _SegmentEnds(NamedTuple):
    """The ends of the segment that a bisection halves, and the label of the example."""

    x: Array  # [b d], the example
    label: Array  # [b]
    point: Array  # [b d], the point that fools the model


class _Refined(NamedTuple):
    """The state of `refine` after each projection."""

    point: Array  # [b d], the nearest point so far that fools the model


def bisect(problem: Problem, point: Array, active: Array) -> Array:
    """Move points [b d] that fool the model towards their examples by bisection.

    Return points just across the boundary, which still fool the model.
    """
    backend = problem.backend
    xp = backend.xp

    def halve(state: _Segment, ends: _SegmentEnds) -> tuple[_Segment, Array]:
        middle = (state.low + state.high) / 2
        trial = problem.clip(ends.x + rearrange(middle, "b -> b 1") * (ends.point - ends.x))
        fooled = problem.is_fooled(backend.forward(problem.f, trial), ends.label)
        state = _Segment(
            low=xp.where(fooled, state.low, middle),
            high=xp.where(fooled, middle, state.high),
            best=xp.where(rearrange(fooled, "b -> b 1"), trial, state.best),
        )
        return state, middle > 0

    x, label = problem.example
    zero = xp.zeros_like(x[:, 0])
    state, ends = _Segment(zero, zero + 1, point), _SegmentEnds(x, label, point)
    return backend.iterate(halve, state, ends, active, steps=BISECTIONS).best


def project_on_hyperplane(
    problem: Problem, example: Example, point: Array, p: float, overshoot: float = 0.0
) -> tuple[Array, Array]:
    """Project each example onto the hyperplane through `point` that is tangent to the boundary.

    With b the point and w the gradient of the margin at b, the projection is

        x + (<b - x, w> / ||w||_q) u,    u = argmax { <w, u> : ||u||_p <= 1 }.

    The step from x to the projection is then lengthened by the share `overshoot`.

    Shapes: point [b d] -> the projection [b d], and a mask [b] of the examples with w != 0.
    """
    backend = problem.backend
    x, label = example
    _, _, normal = problem.find_ascent(point, lambda logits: margin(backend, logits, label))
    slope, direction = steepest_direction(backend, normal, p)
    exists = slope > 0
    reach = (1 + overshoot) * einsum(point - x, normal, "b d, b d -> b")
    length = divide(backend, reach, slope, where=exists)
    return problem.clip(x + rearrange(length, "b -> b 1") * direction), exists


def refine(problem: Problem, point: Array, active: Array, p: float) -> Array:
    """Move points [b d] that fool the model nearer to their examples, and return them.

    First bisect, then project up to `PROJECTIONS` times, then bisect again. A projected point
    replaces the current point if the projected point fools the model and is nearer to the example.
    Otherwise no further projection follows. After refinement, an attack ends at the same point even
    if rounding changed its path slightly.
    """
    backend = problem.backend
    xp = backend.xp

    def project(state: _Refined, example: Example) -> tuple[_Refined, Array]:
        trial, _ = project_on_hyperplane(problem, example, state.point, p, PROJECTION_OVERSHOOT)
        fooled = problem.is_fooled(backend.forward(problem.f, trial), example.label)
        distance = norm(backend, state.point - example.x, p)
        nearer = fooled & (norm(backend, trial - example.x, p) < distance)
        return _Refined(xp.where(rearrange(nearer, "b -> b 1"), trial, state.point)), nearer

    state = _Refined(bisect(problem, point, active))
    state = backend.iterate(project, state, problem.example, active, steps=PROJECTIONS)
    return bisect(problem, state.point, active)


def finish(
    problem: Problem, best: Array, nearest: Array, last: Array, steps: Array, p: float
) -> Perturbation:
    """Return the result of an attack: the point `best` [b d], refined, as a `Perturbation`.

    `nearest` [b] is the distance of `best`, or inf for an example without a point that fooled the
    model. For such an example, the result is the point `last` [b d], without success.
    """
    fooled = problem.backend.xp.isfinite(nearest)
    point = problem.backend.xp.where(rearrange(fooled, "b -> b 1"), best, last)
    refined = refine(problem, point, fooled & problem.is_open, p)
    return problem.make_result(refined, fooled, steps)
