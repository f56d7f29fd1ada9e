"""The fast minimum-norm attack, FMN (Pintor et al., NeurIPS 2021), for inputs in any units."""

from __future__ import annotations

from einops import rearrange

from deepdefense.attacks.common.balls import check_ball_order, project_ball
from deepdefense.attacks.common.losses import margin
from deepdefense.attacks.common.minimum_norm_walk import Iterate, WalkTask, cosine_schedule, walk
from deepdefense.attacks.common.problem import Perturbation, open_problem
from deepdefense.geometry.arithmetic import divide
from deepdefense.geometry.bounds import Bounds
from deepdefense.geometry.norms import steepest_direction
from deepdefense.seam.contract import Array, Model
from deepdefense.seam.validation import check_count, check_number

__all__ = ["fmn"]


def fmn(
    model: Model,
    x: Array,
    y: Array | None = None,
    *,
    p: float = 2,
    steps: int = 100,
    gamma: float = 0.05,
    targeted: bool = False,
    bounds: Bounds | None = None,
) -> Perturbation:
    """Take gradient steps inside a ball whose radius follows the distance to the boundary.

    Let m be the margin, positive where the model is fooled, and q the order dual to p. After trying
    the point x + delta_i, the attack chooses a new radius eps_{i+1}, and then moves to

        delta_{i+1} = P(delta_i + alpha_i u_i).

    u_i is the direction in which m rises fastest, and P projects onto the ball
    ||delta||_p <= eps_{i+1}. The new radius depends on the points tried so far:

    - If the last point fools the model, eps_{i+1} = min((1 - gamma_i) eps_i, d), with d the
      distance of the nearest point that has fooled the model.
    - If only earlier points have fooled the model, eps_{i+1} = (1 + gamma_i) eps_i.
    - If no point has fooled the model,
      eps_{i+1} = (1 + gamma_i) (||delta_i||_p + |m| / ||grad m||_q). Without the factor
      1 + gamma_i, which the paper omits, the points might never cross the boundary.

    The first point is the nearest point of the boundary of the network linearised at x. The
    distance of this point from x is the first alpha_i. In the paper, the first point is x, and the
    first alpha_i is 1, for images in [0, 1]. alpha_i falls along a cosine to a hundredth of its
    first value, and gamma_i falls along a cosine to a fiftieth of its first value.

    Args:
        model: a function from a batch [b ...] to logits [b k], k >= 2; called in inference mode.
        x: examples [b ...], float32 or float64, in the units that the model expects.
        y: labels [b] to leave (None: the predicted classes) or, if `targeted`, classes to reach.
        p: order of the norm to minimise, 2 or inf.
        steps: number of gradients for each example.
        gamma: relative change of the radius in the first step.
        targeted: whether to reach the class y instead of leaving it.
        bounds: range (low, high) of perturbed examples, as numbers or arrays of an example's shape.

    Returns:
        `Perturbation` (x, delta, success, steps): the nearest point that fooled the model, refined
        (`attacks.common.refinement`).

    Raises:
        InputError: an argument is out of range or has the wrong shape, type or framework.

    >>> import numpy as np
    >>> weight = np.array([[3.0, 4.0], [0.0, 0.0]])
    >>> found = fmn(lambda x: x @ weight.T, np.array([[1.0, 0.5]]), p=np.inf)
    >>> round(float(abs(found.delta).max()), 2)  # 5 / ||(3, 4)||_1 = 0.714
    0.71

    Source: Pintor, Roli, Brendel and Biggio (2021), "Fast minimum-norm adversarial attacks through
    adaptive norm constraints", algorithm 1.
    """
    steps = check_count("steps", steps, least=1)
    gamma = check_number("gamma", gamma, least=0, below=1)
    order = check_ball_order(p)
    with open_problem(model, x, y, targeted=targeted, bounds=bounds) as problem:
        backend = problem.backend
        xp = backend.xp

        def move(task: WalkTask, iterate: Iterate) -> tuple[Array, Array]:
            alpha = task.distance * cosine_schedule(backend, iterate.time, 1, 0.01)
            change = gamma * cosine_schedule(backend, iterate.time, 1, 0.02)
            slope, direction = steepest_direction(backend, iterate.gradient, order)
            rest = divide(backend, xp.abs(iterate.value), slope, where=slope > 0, keep=True)
            larger = iterate.radius * (1 + change)
            across = (iterate.distance + rest) * (1 + change)
            outer = xp.where(xp.isfinite(iterate.nearest), larger, across)
            inner = xp.minimum(iterate.radius * (1 - change), iterate.nearest)
            radius = xp.where(iterate.fooled, inner, outer)
            moved = iterate.delta + rearrange(alpha, "b -> b 1") * direction
            return project_ball(backend, moved, radius, order), radius

        return walk(problem, move, loss=margin, p=order, steps=steps)
