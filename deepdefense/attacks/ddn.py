"""Decoupling direction and norm, DDN (Rony et al., CVPR 2019), for inputs in any units."""

from __future__ import annotations

from einops import rearrange

from deepdefense.attacks.common.losses import margin
from deepdefense.attacks.common.minimum_norm_walk import Iterate, WalkTask, cosine_schedule, walk
from deepdefense.attacks.common.problem import Perturbation, open_problem
from deepdefense.geometry.bounds import Bounds
from deepdefense.geometry.norms import steepest_direction
from deepdefense.seam.contract import Array, Model
from deepdefense.seam.validation import check_count, check_number

__all__ = ["ddn"]


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
    """Follow gradients on a sphere, which shrinks if the last point fools the model, else grows.

    Let m be the margin, and r_i the radius of the sphere around x. After trying the point
    x + delta_i, the attack computes in this order:

        r_{i+1} = (1 - gamma) r_i if x + delta_i fools the model, else (1 + gamma) r_i
        v = delta_i + alpha_i grad m / ||grad m||
        delta_{i+1} = r_{i+1} v / ||v||

    The first point is the nearest point of the boundary of the network linearised at x. The
    distance of this point from x is the first radius and the first alpha_i. alpha_i falls along a
    cosine, to a hundredth of its first value.

    In the paper, the loss is the cross-entropy instead of m, the first point is x, and the first
    radius and alpha are 1, for images in [0, 1].

    Args:
        model: a function from a batch [b ...] to logits [b k], k >= 2; called in inference mode.
        x: examples [b ...], float32 or float64, in the units that the model expects.
        y: labels [b] to leave (None: the predicted classes) or, if `targeted`, classes to reach.
        steps: number of gradients for each example.
        gamma: relative change of the radius in each step.
        targeted: whether to reach the class y instead of leaving it.
        bounds: range (low, high) of perturbed examples, as numbers or arrays of an example's shape.

    Returns:
        `Perturbation` (x, delta, success, steps): the nearest point in the 2-norm that fooled the
        model, refined (`attacks.common.refinement`).

    Raises:
        InputError: an argument is out of range or has the wrong shape, type or framework.

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

        def move(task: WalkTask, iterate: Iterate) -> tuple[Array, Array]:
            alpha = task.distance * cosine_schedule(backend, iterate.time, 1, 0.01)
            _, ascent = steepest_direction(backend, iterate.gradient, 2)
            moved = iterate.delta + rearrange(alpha, "b -> b 1") * ascent
            _, direction = steepest_direction(backend, moved, 2)
            smaller, larger = (1 - gamma) * iterate.radius, (1 + gamma) * iterate.radius
            radius = backend.xp.where(iterate.fooled, smaller, larger)
            return rearrange(radius, "b -> b 1") * direction, radius

        return walk(problem, move, loss=margin, p=2, steps=steps)
