"""How a point that fools is brought to rest: drawn in, and turned along the boundary's normal."""

from __future__ import annotations

from typing import NamedTuple

from einops import einsum, rearrange

from deepdefense.attacks.common.losses import margin
from deepdefense.attacks.common.problem import Example, Perturbation, Problem
from deepdefense.geometry.arithmetic import divide
from deepdefense.geometry.norms import norm, steepest_direction
from deepdefense.seam.contract import Array

__all__ = ["finish", "project_on_hyperplane"]

BISECTIONS = 10  # of the segment from the example to the point found


TURNS = 4  # towards the normal, at most


BEYOND = 1e-3  # how far a turned point is set beyond the linearised boundary, relatively


class _Segment(NamedTuple):
    low: Array  # [b], a share of the way that does not fool
    high: Array  # [b], one that does
    best: Array  # [b d], the point there, as it was tried


class _Ends(NamedTuple):
    x: Array
    label: Array
    point: Array


def bisect(problem: Problem, point: Array, found: Array) -> Array:
    """The points [b d] found, drawn in along the segment to their examples while they still fool.

    Bisection: ten forward passes bring the length within a thousandth of the crossing.
    """
    backend = problem.backend
    xp = backend.xp

    def halve(state: _Segment, ends: _Ends) -> tuple[_Segment, Array]:
        middle = (state.low + state.high) / 2
        tried = problem.clip(ends.x + rearrange(middle, "b -> b 1") * (ends.point - ends.x))
        fooled = problem.is_fooled(backend.forward(problem.f, tried), ends.label)
        return (
            _Segment(
                low=xp.where(fooled, state.low, middle),
                high=xp.where(fooled, middle, state.high),
                best=xp.where(rearrange(fooled, "b -> b 1"), tried, state.best),
            ),
            middle > 0,
        )

    x, label = problem.example
    zero = xp.zeros_like(x[:, 0])
    state = _Segment(zero, zero + 1, point)
    return backend.iterate(halve, state, _Ends(x, label, point), found, steps=BISECTIONS).best


def project_on_hyperplane(
    problem: Problem, example: Example, point: Array, p: float, beyond: float = 0.0
) -> tuple[Array, Array]:
    """The nearest point to the example of the hyperplane through `point`, and where there is one.

    x + <b - x, w> / ||w||_q u at a point b, with w the gradient of the margin there and
    u = argmax { <w, u> : ||u||_p <= 1 }; `beyond` lengthens it relatively.

    Shapes: point [b d] -> [b d], [b].
    """
    backend = problem.backend
    x, label = example
    _, _, normal = problem.find_ascent(point, lambda logits: margin(backend, logits, label))
    slope, way = steepest_direction(backend, normal, p)
    there = slope > 0
    reach = (1 + beyond) * einsum(point - x, normal, "b d, b d -> b")
    length = divide(backend, reach, slope, where=there)
    return problem.clip(x + rearrange(length, "b -> b 1") * way), there


class _Point(NamedTuple):
    point: Array  # [b d]


def refine(problem: Problem, point: Array, found: Array, p: float) -> Array:
    """The points [b d] found, brought to rest: drawn in, turned a few times, and drawn in again.

    A turned point is set a thousandth beyond the hyperplane, and taken where it fools and is
    nearer. So walks that differ by a rounding, or a framework, end at the same point. It takes at
    most four gradients and 24 forward passes.
    """
    backend = problem.backend
    xp = backend.xp

    def turn(state: _Point, example: Example) -> tuple[_Point, Array]:
        tried, _ = project_on_hyperplane(problem, example, state.point, p, BEYOND)
        fooled = problem.is_fooled(backend.forward(problem.f, tried), example.label)
        size = norm(backend, state.point - example.x, p)
        nearer = fooled & (norm(backend, tried - example.x, p) < size)
        return _Point(xp.where(rearrange(nearer, "b -> b 1"), tried, state.point)), nearer

    state = _Point(bisect(problem, point, found))
    state = backend.iterate(turn, state, problem.example, found, steps=TURNS)
    return bisect(problem, state.point, found)


def finish(
    problem: Problem, best: Array, nearest: Array, last: Array, steps: Array, p: float
) -> Perturbation:
    """The nearest point that fooled [b d], at rest; the last one tried where none did."""
    found = problem.backend.xp.isfinite(nearest)
    point = problem.backend.xp.where(rearrange(found, "b -> b 1"), best, last)
    return problem.make_result(refine(problem, point, found & problem.is_open, p), found, steps)
