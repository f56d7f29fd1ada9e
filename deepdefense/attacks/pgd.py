"""Projected gradient descent, PGD (Madry et al., ICLR 2018), in the maximum norm and the 2-norm."""

from __future__ import annotations

import math
from typing import NamedTuple

from einops import rearrange

from deepdefense.attacks.common.balls import (
    check_ball_order,
    draw_start,
    make_generators,
    project_ball,
)
from deepdefense.attacks.common.losses import log_odds
from deepdefense.attacks.common.problem import Example, Perturbation, open_problem
from deepdefense.geometry.bounds import Bounds
from deepdefense.geometry.norms import steepest_direction
from deepdefense.seam.contract import Array, Model
from deepdefense.seam.validation import check_count, check_number

__all__ = ["pgd"]


class _PgdState(NamedTuple):
    """The state after each step."""

    point: Array  # [b d], the point reached
    fooled: Array  # [b], whether the point fools the model
    steps: Array  # [b], the number of steps in all runs


def pgd(
    model: Model,
    x: Array,
    y: Array | None = None,
    *,
    eps: float,
    alpha: float | None = None,
    steps: int = 40,
    p: float = math.inf,
    restarts: int = 1,
    random_start: bool = True,
    targeted: bool = False,
    bounds: Bounds | None = None,
    seed: int = 0,
) -> Perturbation:
    """Take steps that raise the cross-entropy fastest, and project each onto a ball around x.

        x_{i+1} = P(x_i + alpha u_i),    u_i = argmax { <grad CE(x_i), u> : ||u||_p <= 1 }

    CE is the cross-entropy. P projects onto the ball of radius eps around x, and then onto the
    bounds. As in `fgsm`, u_i is computed from the log-odds, whose gradient has the same direction.
    The attack on an example stops once x_i fools the model.

    Args:
        model: a function from a batch [b ...] to logits [b k], k >= 2; called in inference mode.
        x: examples [b ...], float32 or float64, in the units that the model expects.
        y: labels [b] to leave (None: the predicted classes) or, if `targeted`, classes to reach.
        eps: radius of the ball around each example, in the units of x.
        alpha: step size; None: 2.5 eps / steps.
        steps: largest number of steps for each example in one run.
        p: order of the norm that defines the ball, 2 or inf.
        restarts: number of runs, each from another starting point. An example that already fools
            the model starts no further run.
        random_start: whether to start at a point drawn uniformly from the ball instead of at x.
        targeted: whether to reach the class y instead of leaving it.
        bounds: range (low, high) of perturbed examples, as numbers or arrays of an example's shape.
        seed: seed of the random starting points, which depend only on the seed and on the values of
            each example.

    Returns:
        `Perturbation` (x, delta, success, steps).

    Raises:
        InputError: an argument is out of range or has the wrong shape, type or framework.

    >>> import numpy as np
    >>> weight = np.array([[3.0, 4.0], [0.0, 0.0]])
    >>> found = pgd(lambda x: x @ weight.T, np.array([[1.0, 0.5]]), eps=0.75)  # 5 / ||(3, 4)||_1
    >>> bool(found.success[0]), bool(abs(found.delta).max() <= 0.75)
    (True, True)

    Source: Madry, Makelov, Schmidt, Tsipras and Vladu (2018), "Towards deep learning models
    resistant to adversarial attacks", section 2.1.
    """
    eps = check_number("eps", eps, least=0)
    if alpha is not None:
        alpha = check_number("alpha", alpha, least=0)
    steps = check_count("steps", steps, least=1)
    restarts = check_count("restarts", restarts, least=1)
    order = check_ball_order(p)
    length = 2.5 * eps / steps if alpha is None else alpha
    with open_problem(model, x, y, targeted=targeted, bounds=bounds) as problem:
        backend, example = problem.backend, problem.example
        xp = backend.xp

        def step(state: _PgdState, example: Example) -> tuple[_PgdState, Array]:
            x, label = example
            _, _, gradient = problem.find_ascent(
                state.point, lambda logits: log_odds(backend, logits, label)
            )
            _, direction = steepest_direction(backend, gradient, order)
            delta = state.point + length * direction - x
            radius = xp.zeros_like(delta[:, 0]) + eps
            point = problem.clip(x + project_ball(backend, delta, radius, order))
            fooled = problem.is_fooled(backend.forward(problem.f, point), label)
            return _PgdState(point, fooled, state.steps + 1), ~fooled

        generators = make_generators(backend, example.x, seed) if random_start else []
        integer_zero = xp.zeros_like(example.label)
        state = _PgdState(example.x, integer_zero > 0, integer_zero)
        for _ in range(restarts):
            active = problem.is_open & ~state.fooled
            start = example.x
            if random_start:
                start = problem.clip(start + draw_start(backend, start, generators, eps, order))
            start = xp.where(rearrange(active, "b -> b 1"), start, state.point)
            state = state._replace(point=start)
            state = backend.iterate(step, state, example, active, steps=steps)
        return problem.make_result(state.point, state.fooled, state.steps)
