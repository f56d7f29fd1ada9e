"""Carlini and Wagner's attack in the 2-norm (S&P 2017), without units of its own."""

from __future__ import annotations

import math
from typing import NamedTuple

from einops import rearrange

from deepdefense.attacks.common.losses import margin
from deepdefense.attacks.common.problem import Perturbation, open_problem
from deepdefense.attacks.common.refinement import finish
from deepdefense.geometry.arithmetic import divide
from deepdefense.geometry.bounds import Bounds
from deepdefense.geometry.norms import norm
from deepdefense.seam.compilers import without_autograph
from deepdefense.seam.contract import Array, Model
from deepdefense.seam.validation import check_count, check_number

__all__ = ["cw"]

DECAY, SQUARE_DECAY = 0.9, 0.999  # of Adam's means


class _CwTask(NamedTuple):
    x: Array  # [b d]
    label: Array  # [b]
    unit: Array  # [b], the first estimate of the distance
    c: Array  # [b]


class _CwState(NamedTuple):
    point: Array  # [b d], to try next
    mean: Array  # [b d], Adam's
    square: Array  # [b d], Adam's
    fade: Array  # [b], the power of Adam's first decay, and
    square_fade: Array  # [b], of its second
    hit: Array  # [b], some point of this run fooled
    best: Array  # [b d], the nearest point that fooled in any run
    nearest: Array  # [b], its distance
    steps: Array  # [b]


@without_autograph
def cw(
    model: Model,
    x: Array,
    y: Array | None = None,
    *,
    steps: int = 1000,
    searches: int = 9,
    rate: float = 0.2,
    targeted: bool = False,
    bounds: Bounds | None = None,
) -> Perturbation:
    """Minimise the distance and, weighed by c, the margin that is left; search for the best c.

    min ||delta||_2^2 + c max(-m(x + delta), 0) by Adam, m the margin (positive where x + delta
    fools). c grows tenfold until a run fools; then the interval between the largest c that did not
    and the smallest that did is halved. Runs set out from the nearest boundary of the network
    linearised at x; d away, with the slope s, it gives the first c, 2 d / s (the paper sets out
    from x, with a constant).

    Args:
        model: a batch [b ...] -> logits [b k], k >= 2; called in inference mode.
        x: examples [b ...], float32 or float64, in the units the model takes.
        y: labels [b] to leave (None: the predicted class) or, if `targeted`, to reach.
        steps: gradients of one run.
        searches: runs, one for each c.
        rate: length of a step of Adam in all coordinates together, in units of d.
        targeted: reach the class y instead of leaving it.
        bounds: (low, high), the range of perturbed examples: numbers, or arrays of their shape.

    Returns:
        `Perturbation` (x, delta, success, steps): the nearest point of all runs that fooled,
        brought to rest (`refinement.refine`).

    Bounds are kept by projection, one of the three ways of the paper's section 5.2; its change of
    variables would hold pixels at the edge of the range fast.

    Raises:
        InputError: an argument is out of range, or of the wrong shape, type or framework.

    >>> import numpy as np
    >>> weight = np.array([[3.0, 4.0], [0.0, 0.0]])
    >>> found = cw(lambda x: x @ weight.T, np.array([[1.0, 0.5]]), steps=100)
    >>> round(float(np.linalg.norm(found.delta)), 2)  # 5 / ||(3, 4)||
    1.0

    Source: Carlini and Wagner (2017), "Towards evaluating the robustness of neural networks",
    section 6.1; Kingma and Ba (2015) for Adam.
    """
    steps = check_count("steps", steps, least=1)
    searches = check_count("searches", searches, least=1)
    rate = check_number("rate", rate, least=0)
    with open_problem(model, x, y, targeted=targeted, bounds=bounds) as problem:
        backend = problem.backend
        xp, d = backend.xp, problem.example.x.shape[1]

        def step(state: _CwState, fixed: _CwTask) -> tuple[_CwState, Array]:
            logits, value, gradient = problem.find_ascent(
                state.point, lambda f: margin(backend, f, fixed.label)
            )
            delta = state.point - fixed.x
            distance = norm(backend, delta, 2)
            fooled = problem.is_fooled(logits, fixed.label)
            best, nearest = problem.keep_nearest(
                state.best, state.nearest, state.point, distance, fooled
            )
            pull = xp.where(value < 0, fixed.c, xp.zeros_like(value))
            slope = 2 * delta - rearrange(pull, "b -> b 1") * gradient
            mean = DECAY * state.mean + (1 - DECAY) * slope
            square = SQUARE_DECAY * state.square + (1 - SQUARE_DECAY) * slope * slope
            fade, square_fade = DECAY * state.fade, SQUARE_DECAY * state.square_fade
            size = xp.sqrt(square / rearrange(1 - square_fade, "b -> b 1"))
            mean_now = mean / rearrange(1 - fade, "b -> b 1")
            way = divide(backend, mean_now, size, where=size > 0, keep=True)
            length = rearrange(fixed.unit * (rate / math.sqrt(d)), "b -> b 1")
            after = _CwState(
                point=problem.clip(state.point - length * way),
                mean=mean,
                square=square,
                fade=fade,
                square_fade=square_fade,
                hit=state.hit | fooled,
                best=best,
                nearest=nearest,
                steps=state.steps + 1,
            )
            return after, xp.isfinite(fixed.c)

        (start, label), (unit, slope, landed) = problem.example, problem.estimate_distance(2)
        low, high = xp.zeros_like(unit), xp.zeros_like(unit) + math.inf
        c = divide(backend, 2 * unit, slope, where=slope != 0, keep=True)
        best, nearest, total, last = start, high, xp.zeros_like(label), start
        zero, ones = xp.zeros_like(start), xp.ones_like(unit)
        for _ in range(searches):
            begun = _CwState(landed, zero, zero, ones, ones, total < 0, best, nearest, total)
            fixed = _CwTask(start, label, unit, c)
            state = backend.iterate(step, begun, fixed, problem.is_open, steps=steps)
            best, nearest, total, last = state.best, state.nearest, state.steps, state.point
            high = xp.where(state.hit, c, high)
            low = xp.where(state.hit, low, c)
            c = xp.where(xp.isfinite(high), (low + high) / 2, 10 * c)
        return finish(problem, best, nearest, last, total, 2)
