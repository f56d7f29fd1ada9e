"""The fast minimum-norm attack, FMN (Pintor et al., NeurIPS 2021), independent of input units."""

from __future__ import annotations

from einops import rearrange

from deepdefense.attacks.common.balls import check_ball_order, project_ball
from deepdefense.attacks.common.losses import margin
from deepdefense.attacks.common.problem import Perturbation, open_problem
from deepdefense.attacks.common.walk import Iterate, WalkTask, cosine_schedule, walk
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

    delta_{i+1} = P(delta_i + alpha_i u_i), P the projection onto ||delta||_p <= eps_i, and u_i the
    direction in which the margin m rises fastest. Until a point fools,
    eps = (1 + gamma_i)(||delta||_p + |m| / ||grad m||_q), a little beyond the linearised boundary
    (the paper stops on it, and may approach it for ever). From then on eps grows by 1 + gamma_i
    while the point does not fool, and shrinks by 1 - gamma_i while it does, to the best distance at
    most. The result is the nearest point that fooled, refined (`attacks.common.refinement`). The
    first point lies on the nearest boundary of the network linearised at x, whose distance is the
    first alpha (the paper starts at x, with 1, for images in [0, 1]). alpha falls to a hundredth
    and gamma to a fiftieth, along a cosine.

    Args:
        model: a batch [b ...] -> logits [b k], k >= 2; called in inference mode.
        x: examples [b ...], float32 or float64, in the units the model takes.
        y: labels [b] to leave (None: the predicted class) or, if `targeted`, to reach.
        p: order of the norm that is kept small, 2 or inf.
        steps: gradients to take.
        gamma: relative change of the radius in the first step.
        targeted: reach the class y instead of leaving it.
        bounds: (low, high), the range of perturbed examples: numbers, or arrays of their shape.

    Returns:
        `Perturbation` (x, delta, success, steps).

    Raises:
        InputError: an argument is out of range, or of the wrong shape, type or framework.

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
