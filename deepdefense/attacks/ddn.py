"""Decoupling direction and norm (Rony et al., CVPR 2019), without units of its own."""

from __future__ import annotations

from einops import rearrange

from deepdefense.attacks.common.losses import margin
from deepdefense.attacks.common.problem import Perturbation, open_problem
from deepdefense.attacks.common.walk import WalkTask, WalkView, cosine_schedule, walk
from deepdefense.geometry.bounds import Bounds
from deepdefense.geometry.norms import steepest_direction
from deepdefense.seam.compilers import without_autograph
from deepdefense.seam.contract import Array, Model
from deepdefense.seam.validation import check_count, check_number

__all__ = ["ddn"]


@without_autograph
def ddn(
    model: Model,
    x: Array,
    y: Array | None = None,
    *,
    steps: int = 100,
    gamma: float = 0.05,
    targeted: bool = False,
    bounds: Bounds | None = None,
) -> Perturbation:
    """Gradient steps on a sphere that shrinks while the example is fooled and grows while not.

    delta_{i+1} = r_{i+1} v / ||v||, v = delta_i + alpha_i grad m / ||grad m||, with
    r_{i+1} = (1 -+ gamma) r_i: smaller if x + delta_i is fooled, else larger. The nearest fooled
    point, brought to rest (`refinement.refine`), is the result. The walk sets out from the nearest
    boundary of the network linearised at x, whose distance is the first radius and the first alpha
    (the paper sets out from x, with 1 for both, for images in [0, 1]); alpha falls to a hundredth,
    along a cosine. m is the margin: near a boundary the paper's cross-entropy rises the same way.

    Args:
        model: a batch [b ...] -> logits [b k], k >= 2; called in inference mode.
        x: examples [b ...], float32 or float64, in the units the model takes.
        y: labels [b] to leave (None: the predicted class) or, if `targeted`, to reach.
        steps: gradients to take.
        gamma: by how much the radius changes in a step, relatively.
        targeted: reach the class y instead of leaving it.
        bounds: (low, high), the range of perturbed examples: numbers, or arrays of their shape.

    Returns:
        `Perturbation` (x, delta, success, steps), small in the 2-norm.

    Raises:
        InputError: an argument is out of range, or of the wrong shape, type or framework.

    >>> import numpy as np
    >>> weight = np.array([[3.0, 4.0], [0.0, 0.0]])
    >>> found = ddn(lambda x: x @ weight.T, np.array([[1.0, 0.5]]))
    >>> round(float(np.linalg.norm(found.delta)), 2)  # 5 / ||(3, 4)||
    1.0

    Source: Rony, Hafemann, Oliveira, Ben Ayed, Sabourin and Granger (2019), "Decoupling direction
    and norm for efficient gradient-based L2 adversarial attacks and defenses", algorithm 1.
    """
    steps = check_count("steps", steps, least=1)
    gamma = check_number("gamma", gamma, least=0, below=1)
    with open_problem(model, x, y, targeted=targeted, bounds=bounds) as problem:
        backend = problem.backend
        xp = backend.xp

        def move(start: WalkTask, view: WalkView) -> tuple[Array, Array]:
            alpha = start.unit * cosine_schedule(backend, view.time, 1, 0.01)
            _, direction = steepest_direction(backend, view.gradient, 2)
            _, way = steepest_direction(
                backend, view.delta + rearrange(alpha, "b -> b 1") * direction, 2
            )
            radius = xp.where(view.fooled, (1 - gamma) * view.radius, (1 + gamma) * view.radius)
            return rearrange(radius, "b -> b 1") * way, radius

        return walk(problem, move, loss=margin, p=2, steps=steps)
