"""Carlini and Wagner's attack in the 2-norm (S&P 2017), independent of the units of the inputs."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

from einops import rearrange

from deepdefense.attacks.common.losses import margin
from deepdefense.attacks.common.problem import Perturbation, Problem, open_problem
from deepdefense.attacks.common.refinement import finish
from deepdefense.geometry.arithmetic import divide
from deepdefense.geometry.bounds import Bounds
from deepdefense.geometry.norms import norm
from deepdefense.seam.contract import Array, Backend, Model
from deepdefense.seam.validation import check_count, check_number

__all__ = ["cw"]

MEAN_DECAY, SQUARE_DECAY = 0.9, 0.999  # decay rates of the running means in Adam


class _CwTask(NamedTuple):
    """The data of each example that stay constant during one run."""

    x: Array  # [b d]
    label: Array  # [b]
    distance: Array  # [b], the estimated distance to the boundary
    c: Array  # [b], the weight of the hinge loss


class _CwState(NamedTuple):
    """The state after each step; the last three fields carry over from one run to the next."""

    point: Array  # [b d], the point to try next
    mean: Array  # [b d], Adam's running mean of the gradients
    square: Array  # [b d], Adam's running mean of the squared gradients
    mean_fade: Array  # [b], MEAN_DECAY ** (number of steps in this run)
    square_fade: Array  # [b], SQUARE_DECAY ** (number of steps in this run)
    hit: Array  # [b], whether any point of this run fooled the model
    best: Array  # [b d], the nearest point of all runs that fooled the model
    nearest: Array  # [b], the distance of `best` from the example; inf if no point fooled the model
    steps: Array  # [b], the number of steps in all runs


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
    """Minimise the squared distance plus c times a hinge loss, and search for the best c.

    Let m be the margin, positive where the model is fooled. Each run minimises

        ||delta||_2^2 + c max(-m(x + delta), 0)

    by Adam. Each run starts at the nearest point of the boundary of the network linearised at x.
    Let d be the distance of this point from x, and s the 2-norm of the linearised boundary's
    normal. The first run has c = 2 d / s. In the paper, runs start at x, with a constant first c.

    As long as no run has found a point that fools the model, c grows tenfold from run to run. After
    that, c is the mean of two values: the largest c of a run that found no such point (0 if every
    run found one), and the smallest c of a run that found one.

    Args:
        model: a function from a batch [b ...] to logits [b k], k >= 2; called in inference mode.
        x: examples [b ...], float32 or float64, in the units that the model expects.
        y: labels [b] to leave (None: the predicted classes) or, if `targeted`, classes to reach.
        steps: number of gradients for each example in one run.
        searches: number of runs, each with another c.
        rate: 2-norm of a typical step of Adam, as a share of d.
        targeted: whether to reach the class y instead of leaving it.
        bounds: range (low, high) of perturbed examples, as numbers or arrays of an example's shape.

    Returns:
        `Perturbation` (x, delta, success, steps): the nearest point of all runs that fooled
        the model, refined (`attacks.common.refinement`).

    Points are clipped to the bounds, one of the methods in section 5.2 of the paper.

    Raises:
        InputError: an argument is out of range or has the wrong shape, type or framework.

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
        backend, (x, label) = problem.backend, problem.example
        xp, step = backend.xp, _make_adam_step(problem, rate)
        distance, slope, start = problem.estimate_distance(2)
        low, high = xp.zeros_like(distance), xp.zeros_like(distance) + math.inf
        c = divide(backend, 2 * distance, slope, where=slope != 0, keep=True)
        zero, one, integer_zero = xp.zeros_like(x), xp.ones_like(distance), xp.zeros_like(label)
        best, nearest, total, last = x, high, integer_zero, x
        for _ in range(searches):
            state = _CwState(start, zero, zero, one, one, integer_zero < 0, best, nearest, total)
            task = _CwTask(x, label, distance, c)
            state = backend.iterate(step, state, task, problem.is_open, steps=steps)
            best, nearest, total, last = state.best, state.nearest, state.steps, state.point
            high = xp.where(state.hit, c, high)
            low = xp.where(state.hit, low, c)
            c = xp.where(xp.isfinite(high), (low + high) / 2, 10 * c)
        return finish(problem, best, nearest, last, total, 2)


def _make_adam_step(
    problem: Problem, rate: float
) -> Callable[[_CwState, _CwTask], tuple[_CwState, Array]]:
    """Return the loop body of a run: try a point and take one step of Adam."""
    backend = problem.backend
    xp = backend.xp

    def step(state: _CwState, task: _CwTask) -> tuple[_CwState, Array]:
        logits, value, gradient = problem.find_ascent(
            state.point, lambda logits: margin(backend, logits, task.label)
        )
        delta = state.point - task.x
        distance = norm(backend, delta, 2)
        fooled = problem.is_fooled(logits, task.label)
        best, nearest = problem.keep_nearest(
            state.best, state.nearest, state.point, distance, fooled
        )
        weight = xp.where(value < 0, task.c, xp.zeros_like(value))
        objective_gradient = 2 * delta - rearrange(weight, "b -> b 1") * gradient
        state, direction = _update_adam(backend, state, objective_gradient)
        length = rearrange(task.distance * (rate / math.sqrt(delta.shape[1])), "b -> b 1")
        state = state._replace(
            point=problem.clip(state.point - length * direction),
            hit=state.hit | fooled,
            best=best,
            nearest=nearest,
            steps=state.steps + 1,
        )
        return state, xp.isfinite(task.c)

    return step


def _update_adam(backend: Backend, state: _CwState, gradient: Array) -> tuple[_CwState, Array]:
    """Return the state with Adam's means updated, and the direction of Adam's step [b d]."""
    state = state._replace(
        mean=MEAN_DECAY * state.mean + (1 - MEAN_DECAY) * gradient,
        square=SQUARE_DECAY * state.square + (1 - SQUARE_DECAY) * gradient * gradient,
        mean_fade=MEAN_DECAY * state.mean_fade,
        square_fade=SQUARE_DECAY * state.square_fade,
    )
    mean = state.mean / rearrange(1 - state.mean_fade, "b -> b 1")
    size = backend.xp.sqrt(state.square / rearrange(1 - state.square_fade, "b -> b 1"))
    return state, divide(backend, mean, size, where=size > 0, keep=True)
