"""The last stage of minimum-norm attacks: bring a point that fools nearer to its example.

It bisects the segment to the example, and projects the example onto the boundary's hyperplane at
the point.
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

BISECTIONS = 10  # of the segment; they bring the length within a thousandth of the crossing
PROJECTIONS = 4  # at most
PROJECTION_OVERSHOOT = 1e-3  # of a projection, so that it ends across the boundary


class _Segment(NamedTuple):
    low: Array  # [b], a share of the segment that does not fool
    high: Array  # [b], a share that does
    best: Array  # [b d], the point at `high`, exactly as it was tried


class _SegmentEnds(NamedTuple):
    x: Array  # [b d]
    label: Array  # [b]
    point: Array  # [b d]


class _Refined(NamedTuple):
    point: Array  # [b d]


def bisect(problem: Problem, point: Array, active: Array) -> Array:
    """Move points that fool [b d] towards their examples as far as they still fool."""
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
    """Project the example onto the hyperplane through `point` along the boundary there.

    x + <b - x, w> / ||w||_q u at a point b, with w the gradient of the margin there and
    u = argmax { <w, u> : ||u||_p <= 1 }; `overshoot` lengthens the step relatively.

    Shapes: point [b d] -> the projection [b d], and where the gradient does not vanish [b].
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
    """Bring points that fool [b d] nearer: bisect, project a few times, and bisect again.

    A projection replaces the point where it fools and is nearer. So attacks whose paths differ by
    rounding, or by framework, end at the same point. It takes at most four gradients and 24 forward
    passes.
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
    """Return the best point [b d], refined; or the last one tried where none fooled.

    `nearest` [b] is the distance of the best point, inf where none fooled.
    """
    fooled = problem.backend.xp.isfinite(nearest)
    point = problem.backend.xp.where(rearrange(fooled, "b -> b 1"), best, last)
    refined = refine(problem, point, fooled & problem.is_open, p)
    return problem.make_result(refined, fooled, steps)
