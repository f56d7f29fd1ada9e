"""Towards the nearest point of a decision boundary, from where one stands, in any p-norm.

The search of `DeepDefense.fast`: it sets out from x at every step, keeps within a box if there is
one, and tries none of its steps out.
"""

from __future__ import annotations

from typing import NamedTuple

from einops import rearrange, reduce

from deepdefense.geometry.arithmetic import divide
from deepdefense.geometry.boundary import Boundary, Task, boundary_step, linearised_step, make_task
from deepdefense.geometry.bounds import Box
from deepdefense.geometry.norms import dual, norm, steepest_direction
from deepdefense.geometry.search import SearchResult
from deepdefense.seam.contract import Array, Backend, Fold, Forward

__all__ = ["find_nearest_point"]

# How often what the box cuts off the shortest way is made up for. On MNIST no image then lacks more
# than some millionths of its way, and after the first time a hundredth.
FILLS = 3


class _NearestPoint(NamedTuple):
    shift: Array  # [b d]
    length: Array  # [b], its p-norm
    slope: Array  # [b], of the last step's normal
    base: Array  # [b], and
    target: Array  # [b]: the classes it went between
    steps: Array  # [b]


def find_nearest_point(
    backend: Backend,
    f: Forward,
    x: Array,
    label: Array,
    *,
    p: float,
    steps: int,
    overshoot: float,
    candidates: int,
    box: Box | None = None,
) -> tuple[SearchResult, Array, Array]:
    """Towards the nearest point of a boundary, by steps that all set out from x, none tried out.

        r_{i+1} = argmin { ||r||_p : g(x + r_i) + <w_i, r - r_i> = 0, x + r in the box },  r_0 = 0

    The first step is that of `search_boundary`. A later one leads from x to the plane that the
    linearisation at x + r_i takes for the boundary; one of `search_boundary` leads there from
    x + r_i, and its steps add up to a longer path. The tasks are those of `search_boundary` with
    `reach`. The first step reuses the clean logits.

    As `search_boundary` returns, with `success` False throughout and only the last step's classes;
    within a box `slope` is |dg| / d||r||_p, by how much the gap changes as the way grows.

    Source: Hasofer and Lind (1974), "Exact and invariant second-moment code format"; Rackwitz and
    Fiessler (1978), "Structural reliability under combined random load sequences".
    """
    xp = backend.xp
    x = backend.stop_gradient(x)
    clean, fold = backend.class_gradients(f, x)
    task, finite = make_task(backend, x, clean, label, candidates, p)

    def onto(
        state: _NearestPoint, task: Task, logits: Array, fold: Fold
    ) -> tuple[_NearestPoint, Array]:
        move, slope, base, nearest = linearised_step(
            backend, task, state.shift, logits, fold, p, from_x=True
        )
        if box is not None:
            move, slope = _shortest_within(backend, box, task.x, move, nearest, p)
        length = norm(backend, move, p)
        exists = (slope > 0) & xp.isfinite((1 + overshoot) * length)
        taken = _NearestPoint(
            shift=xp.where(rearrange(exists, "b -> b 1"), move, state.shift),
            length=xp.where(exists, length, state.length),
            slope=xp.where(exists, slope, state.slope),
            base=xp.where(exists, base, state.base),
            target=xp.where(exists, xp.argmax(nearest.contrast, 1), state.target),
            steps=xp.where(exists, state.steps + 1, state.steps),
        )
        return taken, exists

    def step(state: _NearestPoint, task: Task) -> tuple[_NearestPoint, Array]:
        logits, fold = backend.class_gradients(f, task.x + state.shift)
        return onto(state, task, logits, fold)

    none = xp.zeros_like(task.label)
    zero = xp.zeros_like(task.shortest)
    start = _NearestPoint(xp.zeros_like(x), zero, zero, none, none, none)
    state, active = onto(start, task, clean, fold)
    # An example that is not finite has been moved, if its logits are finite, and is moved back.
    state = state._replace(
        shift=xp.where(rearrange(finite, "b -> b 1"), state.shift, start.shift),
        length=xp.where(finite, state.length, zero),
        steps=xp.where(finite, state.steps, none),
    )
    if steps > 1:
        state = backend.iterate(step, state, task, active & finite, steps=steps - 1)
    found = SearchResult(
        shift=state.shift,
        length=state.length,
        slope=state.slope,
        steps=state.steps,
        success=none > 0,
        bases=rearrange(state.base, "b -> b 1"),
        targets=rearrange(state.target, "b -> b 1"),
    )
    return found, task.leave, finite


def _shortest_within(
    backend: Backend, box: Box, x: Array, move: Array, plane: Boundary, p: float
) -> tuple[Array, Array]:
    """The shortest step from x onto the plane in the box, and its slope: [b d], [b].

    What the box cuts off is made up for along the coordinates that are not at their bound, which
    have then moved as if there were no box and a larger gap. They would go on for a gap still
    larger, with ||r||_p growing by <grad ||r||_p, u> / ||w||_q of it, w and u the normal and the
    steepest direction among them; the slope is the inverse of that, and 0 if there are none.
    """
    xp = backend.xp
    beyond = xp.abs(plane.gap)
    none = xp.zeros_like(beyond)
    point = box.clip(x + move)
    for _ in range(FILLS):
        lacking = beyond - reduce(plane.normal * (point - x), "b d -> b", "sum")
        lacking = xp.where(lacking > 0, lacking, none)
        free = box.mask_outward(point, plane.normal)
        point = box.clip(point + boundary_step(backend, lacking, free, p, none)[0])
    rise, way = steepest_direction(backend, box.mask_outward(point, plane.normal), p)
    outward = steepest_direction(backend, point - x, dual(p))[1]  # grad ||r||_p
    growth = reduce(outward * way, "b d -> b", "sum")
    return point - x, divide(backend, rise, growth, where=growth > 0)
