"""Auto-PGD, APGD (Croce and Hein, ICML 2020): gradient ascent with an adaptive step size."""

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
from deepdefense.seam.contract import Array, Backend, Model
from deepdefense.seam.validation import check_choice, check_count, check_number

__all__ = ["apgd"]

LOSSES = ("cross-entropy", "dlr", "targeted-dlr")
MOMENTUM = 0.75  # weight of the new step; the last step has the weight 1 - MOMENTUM (section 3.1)
# The number of steps from one checkpoint to the next, as a share of all steps: the first value, the
# decrease at each checkpoint, and the least value.
FIRST_WINDOW, WINDOW_DECREASE, LEAST_WINDOW = 0.22, 0.03, 0.06


class _ApgdTask(NamedTuple):
    """The data of each example that stay constant during one run."""

    x: Array  # [b d]
    label: Array  # [b]
    target: Array  # [b], the target class of the loss "targeted-dlr"


class _ApgdState(NamedTuple):
    """The values that one run carries from one step to the next."""

    point: Array  # [b d], the point to try next
    previous: Array  # [b d], the point from which the last step started, for the momentum
    value: Array  # [b], the loss at the point tried last
    best: Array  # [b d], the point with the highest loss so far
    best_gradient: Array  # [b d], the gradient of the loss at `best`
    highest: Array  # [b], the loss at `best`
    length: Array  # [b], the step size
    window: Array  # [b], the number of steps between the last checkpoint and the next
    since: Array  # [b], the number of steps since the last checkpoint
    rises: Array  # [b], how many steps since the last checkpoint raised the loss
    kept: Array  # [b], whether the step size was kept at the last checkpoint
    mark: Array  # [b], the value of `highest` at the last checkpoint
    fooled: Array  # [b], whether the point tried last fools the model
    steps: Array  # [b], the number of points tried


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
    """Take projected gradient steps with momentum; halve the step size where progress has stalled.

    One step moves from x_i to x_{i+1}:

        z = P(x_i + l u_i),    x_{i+1} = P(x_i + a (z - x_i) + (1 - a) (x_i - x_{i-1})).

    P projects onto the ball around x and then onto the bounds. u_i is the direction in which the
    loss rises fastest at x_i, l is the step size, and a = 3/4. The first step has no momentum and
    ends at z.

    The step size l is 2 eps at first. At certain steps, called checkpoints, the attack halves l if
    one of two conditions holds:

    - Fewer than 3/4 of the steps since the last checkpoint raised the loss.
    - The last checkpoint did not halve l, and the highest loss has not risen since then.

    After halving l, the attack continues without momentum from the point with the highest loss.

    Args:
        model: a function from a batch [b ...] to logits [b k], k >= 2; called in inference mode.
        x: examples [b ...], float32 or float64, in the units that the model expects.
        y: labels [b] to leave (None: the predicted classes) or, if `targeted`, classes to reach.
        eps: radius of the ball around each example, in the units of x.
        p: order of the norm that defines the ball, 2 or inf.
        steps: largest number of gradients for each example in one run.
        restarts: number of runs, each from another starting point. An example that already fools
            the model starts no further run.
        loss: "cross-entropy", "dlr" (difference of logits ratio), or "targeted-dlr", which makes
            `restarts` runs towards each of the `targets` most likely classes other than the label.
        targets: number of target classes of "targeted-dlr".
        targeted: whether to reach the class y instead of leaving it.
        bounds: range (low, high) of perturbed examples, as numbers or arrays of an example's shape.
        seed: seed of the random starting points, which depend only on the seed and on the values of
            each example.

    Returns:
        `Perturbation` (x, delta, success, steps). The attack on an example stops once the
        perturbed example fools the model.

    For the loss "cross-entropy", the attack computes the log-odds
    (`attacks.common.losses.log_odds`). Their gradient has the same direction, but does not vanish
    where the network is certain.

    Raises:
        InputError: an argument is out of range or has the wrong shape, type or framework.

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
        backend, (x, label) = problem.backend, problem.example
        xp, depth = backend.xp, problem.clean.shape[1]
        step = _make_ascent_step(problem, loss, eps, order, steps)
        runs = min(targets, depth - 1) if loss == "targeted-dlr" else 1
        ranked = backend.rank(problem.clean, runs + 1)
        generators = make_generators(backend, x, seed)
        integer_zero = xp.zeros_like(label)
        point, fooled, total = x, integer_zero > 0, integer_zero
        for run in range(runs * restarts):
            active = problem.is_open & ~fooled
            if not backend.to_numpy(active).any():
                break
            task = _ApgdTask(x, label, ranked[:, 1 + run // restarts])
            start = problem.clip(x + draw_start(backend, x, generators, eps, order))
            state = _make_start(problem, start, eps, steps)
            state = backend.iterate(step, state, task, active, steps=steps)
            point = xp.where(rearrange(active, "b -> b 1"), state.point, point)
            fooled, total = fooled | (active & state.fooled), total + state.steps
        return problem.make_result(point, fooled, total)


def _make_start(problem: Problem, point: Array, eps: float, steps: int) -> _ApgdState:
    """Return the state of a run before its first step, which tries `point` [b d]."""
    xp = problem.backend.xp
    zero, integer_zero = xp.zeros_like(point[:, 0]), xp.zeros_like(problem.example.label)
    return _ApgdState(
        point=point,
        previous=point,
        value=zero - math.inf,
        best=point,
        best_gradient=xp.zeros_like(point),
        highest=zero - math.inf,
        length=zero + 2 * eps,
        window=integer_zero + max(int(FIRST_WINDOW * steps), 1),
        since=integer_zero,
        rises=integer_zero,
        kept=integer_zero < 0,
        mark=zero - math.inf,
        fooled=integer_zero > 0,
        steps=integer_zero,
    )


def _make_ascent_step(
    problem: Problem, loss: str, eps: float, p: float, steps: int
) -> Callable[[_ApgdState, _ApgdTask], tuple[_ApgdState, Array]]:
    """Return the loop body of a run: try a point, adapt the step size, and move on."""
    backend = problem.backend
    xp = backend.xp

    def project(x: Array, point: Array) -> Array:
        radius = xp.zeros_like(x[:, 0]) + eps
        return problem.clip(x + project_ball(backend, point - x, radius, p))

    def move(state: _ApgdState, x: Array, direction: Array) -> Array:
        point = state.point
        ahead = project(x, point + rearrange(state.length, "b -> b 1") * direction)
        mixed = point + MOMENTUM * (ahead - point) + (1 - MOMENTUM) * (point - state.previous)
        first = rearrange(state.steps == 0, "b -> b 1")
        return xp.where(first, ahead, project(x, mixed))

    def step(state: _ApgdState, task: _ApgdTask) -> tuple[_ApgdState, Array]:
        tried = state.point
        logits, value, gradient = problem.find_ascent(
            tried, lambda logits: _compute_loss(backend, loss, logits, task)
        )
        fooled = problem.is_fooled(logits, task.label)
        state, halved = _adapt_length(backend, _keep_best(backend, state, value, gradient), steps)
        # An example whose step size was halved continues from its best point.
        halved_row = rearrange(halved, "b -> b 1")
        uphill = xp.where(halved_row, state.best_gradient, gradient)
        _, direction = steepest_direction(backend, uphill, p)
        moved = move(state, task.x, direction)
        state = state._replace(
            point=xp.where(rearrange(fooled, "b -> b 1"), tried, moved),
            previous=state.point,
            fooled=fooled,
            steps=state.steps + 1,
        )
        return state, ~fooled

    return step


def _compute_loss(backend: Backend, name: str, logits: Array, task: _ApgdTask) -> losses.Loss:
    """Return the loss called `name`, one of `LOSSES`, for logits [b k]."""
    if name == "targeted-dlr":
        return losses.targeted_dlr(backend, logits, task.label, task.target)
    loss = losses.dlr if name == "dlr" else losses.log_odds
    return loss(backend, logits, task.label)


def _keep_best(backend: Backend, state: _ApgdState, value: Array, gradient: Array) -> _ApgdState:
    """Return the state after trying a point with the loss `value` [b] and its gradient [b d]."""
    xp = backend.xp
    higher = value > state.highest
    row = rearrange(higher, "b -> b 1")
    rose = (value > state.value) & (state.steps > 0)
    return state._replace(
        value=value,
        best=xp.where(row, state.point, state.best),
        best_gradient=xp.where(row, gradient, state.best_gradient),
        highest=xp.where(higher, value, state.highest),
        rises=xp.where(rose, state.rises + 1, state.rises),
    )


def _adapt_length(backend: Backend, state: _ApgdState, steps: int) -> tuple[_ApgdState, Array]:
    """At a checkpoint without enough progress, halve the step size and go back to the best point.

    Returns: the updated state, and a mask [b] of the examples whose step size was halved.
    """
    xp = backend.xp
    due = state.since == state.window
    unchanged = state.kept & (state.mark == state.highest)
    halved = due & ((4 * state.rises < 3 * state.window) | unchanged)
    row = rearrange(halved, "b -> b 1")
    integer_zero = xp.zeros_like(state.since)
    decrease, least = (max(int(each * steps), 1) for each in (WINDOW_DECREASE, LEAST_WINDOW))
    shorter = xp.maximum(state.window - decrease, integer_zero + least)
    state = state._replace(
        point=xp.where(row, state.best, state.point),
        previous=xp.where(row, state.best, state.previous),
        length=xp.where(halved, state.length / 2, state.length),
        window=xp.where(due, shorter, state.window),
        since=xp.where(due, integer_zero + 1, state.since + 1),
        rises=xp.where(due, integer_zero, state.rises),
        kept=xp.where(due, ~halved, state.kept),
        mark=xp.where(due, state.highest, state.mark),
    )
    return state, halved
