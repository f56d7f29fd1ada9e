"""The fast minimum-norm attack (Pintor et al., NeurIPS 2021), without units of its own."""

from __future__ import annotations

from einops import rearrange

from deepdefense.attacks.common.balls import check_ball_order, project_ball
from deepdefense.attacks.common.losses import margin
from deepdefense.attacks.common.problem import Perturbation, open_problem
from deepdefense.attacks.common.walk import WalkTask, WalkView, cosine_schedule, walk
from deepdefense.geometry.arithmetic import divide
from deepdefense.geometry.bounds import Bounds
from deepdefense.geometry.norms import steepest_direction
from deepdefense.seam.compilers import without_autograph
from deepdefense.seam.contract import Array, Model
from deepdefense.seam.validation import check_count, check_number

__all__ = ["fmn"]


@without_autograph
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
    """Gradient steps inside of a ball whose radius follows the distance to the boundary.

    delta_{i+1} = P(delta_i + alpha_i u_i), P onto ||delta||_p <= eps_i, with u_i the way the margin
    m rises fastest. Until a point fools, eps = (1 + gamma_i)(||delta||_p + |m| / ||grad m||_q), a
    little beyond the linearised boundary (the paper stops on it, which may approach it for ever);
    from then on it grows by 1 + gamma_i while the point does not fool; while it does it shrinks by
    1 - gamma_i, to the best distance at most. The nearest fooled point, brought to rest
    (`refinement.refine`), is the result. The walk sets out from the nearest boundary of the network
    linearised at x, whose distance is the first alpha (the paper sets out from x, with 1, for
    images in [0, 1]); alpha falls to a hundredth and gamma to a fiftieth, along a cosine.

    Args:
        model: a batch [b ...] -> logits [b k], k >= 2; called in inference mode.
        x: examples [b ...], float32 or float64, in the units the model takes.
        y: labels [b] to leave (None: the predicted class) or, if `targeted`, to reach.
        p: order of the norm to be small in, 2 or inf.
        steps: gradients to take.
        gamma: by how much the radius changes in a step at first, relatively.
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

        def move(start: WalkTask, view: WalkView) -> tuple[Array, Array]:
            alpha = start.unit * cosine_schedule(backend, view.time, 1, 0.01)
            change = gamma * cosine_schedule(backend, view.time, 1, 0.02)
            slope, direction = steepest_direction(backend, view.gradient, order)
            ahead = divide(backend, xp.abs(view.value), slope, where=slope > 0, keep=True)
            wider = view.radius * (1 + change)
            across = (view.distance + ahead) * (1 + change)
            outside = xp.where(xp.isfinite(view.nearest), wider, across)
            inside = xp.minimum(view.radius * (1 - change), view.nearest)
            radius = xp.where(view.fooled, inside, outside)
            moved = view.delta + rearrange(alpha, "b -> b 1") * direction
            return project_ball(backend, moved, radius, order), radius

        return walk(problem, move, loss=margin, p=order, steps=steps)
