"""Auto-PGD (Croce and Hein, ICML 2020): projected gradient ascent that sets its own step."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

from einops import rearrange

from deepdefense.attacks.common import losses
from deepdefense.attacks.common.balls import (
    check_ball_order,
    draw_start,
    make_generators,
    project_ball,
)
from deepdefense.attacks.common.problem import Perturbation, Problem, open_problem
from deepdefense.errors import InputError
from deepdefense.geometry.bounds import Bounds
from deepdefense.geometry.norms import steepest_direction
from deepdefense.seam.compilers import without_autograph
from deepdefense.seam.contract import Array, Model
from deepdefense.seam.validation import check_choice, check_count, check_number

__all__ = ["apgd"]

LOSSES = ("cross-entropy", "dlr", "targeted-dlr")
MOMENTUM = 0.75  # the share of a step that is new; section 3.1 of the paper
FIRST, SHRINK, LEAST = 0.22, 0.03, 0.06  # of all steps: lengths of the windows between checkpoints


class _ApgdTask(NamedTuple):
    x: Array  # [b d]
    label: Array  # [b]
    target: Array  # [b], of the targeted loss


class _ApgdState(NamedTuple):
    point: Array  # [b d]
    before: Array  # [b d], the point before it
    value: Array  # [b], of the loss there
    best: Array  # [b d], the point of the highest loss, and
    best_gradient: Array  # [b d]
    highest: Array  # [b]
    length: Array  # [b], of a step
    window: Array  # [b], steps between the last checkpoint and the next
    since: Array  # [b], steps since the last checkpoint, and among them
    rises: Array  # [b], those that raised the loss
    kept: Array  # [b], the length was not halved at the last checkpoint
    mark: Array  # [b], the highest loss then
    found: Array  # [b]
    steps: Array  # [b]


@without_autograph
def apgd(
    model: Model,
    x: Array,
    y: Array | None = None,
    *,
    eps: float,
    p: float = math.inf,
    steps: int = 100,
    restarts: int = 1,
    loss: str = "cross-entropy",
    targets: int = 9,
    targeted: bool = False,
    bounds: Bounds | None = None,
    seed: int = 0,
) -> Perturbation:
    """Projected gradient ascent with momentum; the step is halved where progress has stalled.

    z = P(x_i + l u_i), x_{i+1} = P(x_i + a (z - x_i) + (1 - a)(x_i - x_{i-1})), a = 3/4, with P
    onto the ball and the bounds and u_i the way the loss rises fastest. l = 2 eps at first. At a
    checkpoint where fewer than 3/4 of the steps since the last raised the loss, or neither l nor
    the highest loss has changed since, l is halved and the best point taken up again.

    Args:
        model: a batch [b ...] -> logits [b k], k >= 2; called in inference mode.
        x: examples [b ...], float32 or float64, in the units the model takes.
        y: labels [b] to leave (None: the predicted class) or, if `targeted`, to reach.
        eps: radius of the ball, in the units of x.
        p: order of the norm, 2 or inf.
        steps: the most gradients of one run.
        restarts: runs, each from another point; an example that is fooled makes no more of them.
        loss: "cross-entropy", "dlr" (difference of logits ratio), or "targeted-dlr", which makes
            these runs towards each of the most likely `targets` other classes.
        targets: of "targeted-dlr".
        targeted: reach the class y instead of leaving it.
        bounds: (low, high), the range of perturbed examples: numbers, or arrays of their shape.
        seed: of the random starts; what is drawn depends on it and on the example's own values.

    Returns:
        `Perturbation` (x, delta, success, steps). An example is done as soon as it is fooled.

    The cross-entropy is taken by its log-odds: the same ascent, and no saturation.

    Raises:
        InputError: an argument is out of range, or of the wrong shape, type or framework.

    >>> import numpy as np
    >>> weight = np.array([[3.0, 4.0], [0.0, 0.0]])
    >>> found = apgd(lambda x: x @ weight.T, np.array([[1.0, 0.5]]), eps=1.01, p=2)
    >>> bool(found.success[0]), bool(np.linalg.norm(found.delta) <= 1.01)
    (True, True)

    Source: Croce and Hein (2020), "Reliable evaluation of adversarial robustness with an ensemble
    of diverse parameter-free attacks", algorithm 1 and section 4.
    """
    eps = check_number("eps", eps, least=0)
    steps = check_count("steps", steps, least=1)
    restarts = check_count("restarts", restarts, least=1)
    targets = check_count("targets", targets, least=1)
    check_choice("loss", loss, LOSSES)
    order = check_ball_order(p)
    if targeted and loss == "targeted-dlr":
        raise InputError('loss "targeted-dlr" picks its own targets: with targeted use "dlr"')
    with open_problem(model, x, y, targeted=targeted, bounds=bounds) as problem:
        backend, (flat, label) = problem.backend, problem.example
        xp, depth = backend.xp, problem.clean.shape[1]
        ascend = _step(problem, loss, eps, order, steps)
        several = min(targets, depth - 1) if loss == "targeted-dlr" else 1
        ranked = backend.rank(problem.clean, several + 1)
        sources = make_generators(backend, flat, seed)
        none = xp.zeros_like(label)
        point, found, total = flat, none > 0, none
        for run in range(several * restarts):
            going = problem.is_open & ~found
            if not backend.to_numpy(going).any():
                break
            fixed = _ApgdTask(flat, label, ranked[:, 1 + run // restarts])
            begun = problem.clip(flat + draw_start(backend, flat, sources, eps, order))
            state = backend.iterate(
                ascend, _begin(problem, begun, eps, steps), fixed, going, steps=steps
            )
            point = xp.where(rearrange(going, "b -> b 1"), state.point, point)
            found, total = found | (going & state.found), total + state.steps
        return problem.make_result(point, found, total)


def _begin(problem: Problem, point: Array, eps: float, steps: int) -> _ApgdState:
    xp = problem.backend.xp
    zero, none = xp.zeros_like(point[:, 0]), xp.zeros_like(problem.example.label)
    return _ApgdState(
        point=point,
        before=point,
        value=zero - math.inf,
        best=point,
        best_gradient=xp.zeros_like(point),
        highest=zero - math.inf,
        length=zero + 2 * eps,
        window=none + max(int(FIRST * steps), 1),
        since=none,
        rises=none,
        kept=none < 0,
        mark=zero - math.inf,
        found=none > 0,
        steps=none,
    )


def _step(
    problem: Problem, name: str, eps: float, p: float, steps: int
) -> Callable[[_ApgdState, _ApgdTask], tuple[_ApgdState, Array]]:
    """One gradient: look at the point, at a checkpoint think the step over, and move."""
    backend = problem.backend
    xp = backend.xp
    shrink, least = max(int(SHRINK * steps), 1), max(int(LEAST * steps), 1)

    def loss(logits: Array, fixed: _ApgdTask) -> losses.Loss:
        if name == "targeted-dlr":
            return losses.targeted_dlr(backend, logits, fixed.label, fixed.target)
        known = losses.dlr if name == "dlr" else losses.log_odds
        return known(backend, logits, fixed.label)

    def into(x: Array, point: Array) -> Array:
        radius = xp.zeros_like(x[:, 0]) + eps
        return problem.clip(x + project_ball(backend, point - x, radius, p))

    def step(state: _ApgdState, fixed: _ApgdTask) -> tuple[_ApgdState, Array]:
        logits, value, gradient = problem.find_ascent(state.point, lambda f: loss(f, fixed))
        fooled = problem.is_fooled(logits, fixed.label)
        higher = value > state.highest
        row = rearrange(higher, "b -> b 1")
        best = xp.where(row, state.point, state.best)
        best_gradient = xp.where(row, gradient, state.best_gradient)
        highest = xp.where(higher, value, state.highest)
        rises = xp.where((value > state.value) & (state.steps > 0), state.rises + 1, state.rises)

        due = state.since == state.window
        stalled = (4 * rises < 3 * state.window) | (state.kept & (state.mark == highest))
        halve = due & stalled
        back = rearrange(halve, "b -> b 1")
        length = xp.where(halve, state.length / 2, state.length)
        point = xp.where(back, best, state.point)
        before = xp.where(back, best, state.before)
        _, direction = steepest_direction(backend, xp.where(back, best_gradient, gradient), p)

        ahead = into(fixed.x, point + rearrange(length, "b -> b 1") * direction)
        mixed = point + MOMENTUM * (ahead - point) + (1 - MOMENTUM) * (point - before)
        first = rearrange(state.steps == 0, "b -> b 1")
        moved = xp.where(first, ahead, into(fixed.x, mixed))
        none = xp.zeros_like(state.since)
        narrower = xp.maximum(state.window - shrink, none + least)
        after = _ApgdState(
            point=xp.where(rearrange(fooled, "b -> b 1"), state.point, moved),
            before=point,
            value=value,
            best=best,
            best_gradient=best_gradient,
            highest=highest,
            length=length,
            window=xp.where(due, narrower, state.window),
            since=xp.where(due, none + 1, state.since + 1),
            rises=xp.where(due, none, rises),
            kept=xp.where(due, ~halve, state.kept),
            mark=xp.where(due, highest, state.mark),
            found=fooled,
            steps=state.steps + 1,
        )
        return after, ~fooled

    return step
