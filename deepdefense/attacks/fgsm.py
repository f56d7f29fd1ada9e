"""The fast gradient (sign) method, FGSM (Goodfellow, Shlens, Szegedy, ICLR 2015)."""

from __future__ import annotations

import math

from deepdefense.attacks.common.losses import log_odds
from deepdefense.attacks.common.problem import Perturbation, open_problem
from deepdefense.geometry.bounds import Bounds
from deepdefense.geometry.norms import steepest_direction
from deepdefense.seam.contract import Array, Model
from deepdefense.seam.validation import check_number, check_order

__all__ = ["fgsm"]


def fgsm(
    model: Model,
    x: Array,
    y: Array | None = None,
    *,
    eps: float,
    p: float = math.inf,
    targeted: bool = False,
    bounds: Bounds | None = None,
) -> Perturbation:
    """Take one step of length eps in the direction in which the cross-entropy rises fastest.

    The result is x + eps u, with u = argmax { <grad_x CE, u> : ||u||_p <= 1 }. For p = inf, u is
    sign(grad_x CE).

    Args:
        model: a function from a batch [b ...] to logits [b k], k >= 2; called in inference mode.
        x: examples [b ...], float32 or float64, in the units that the model expects.
        y: labels [b] to leave (None: the predicted classes) or, if `targeted`, classes to reach.
        eps: length of the step, in the units of x.
        p: order of the norm in which the step has length eps, from 1 to inf.
        targeted: whether to step towards the class y instead of away from it.
        bounds: range (low, high) of perturbed examples, as numbers or arrays of an example's shape.

    Returns:
        `Perturbation` (x, delta, success, steps). An example that already fools the model
        is not moved.

    The attack computes the gradient of the log-odds (`attacks.common.losses.log_odds`). It has the
    same direction, but does not vanish in float32 where the network is certain.

    Raises:
        InputError: an argument is out of range or has the wrong shape, type or framework.

    >>> import numpy as np
    >>> weight = np.array([[3.0, 4.0], [0.0, 0.0]])
    >>> fgsm(lambda x: x @ weight.T, np.array([[1.0, 0.5]]), eps=0.8).x.round(6)
    array([[ 0.2, -0.3]])

    Source: Goodfellow, Shlens and Szegedy (2015), "Explaining and harnessing adversarial examples",
    section 4.
    """
    eps = check_number("eps", eps, least=0)
    order = check_order(p)
    with open_problem(model, x, y, targeted=targeted, bounds=bounds) as problem:
        backend, (x, label) = problem.backend, problem.example
        _, _, gradient = problem.find_ascent(x, lambda logits: log_odds(backend, logits, label))
        _, direction = steepest_direction(backend, gradient, order)
        point = problem.clip(x + eps * direction)
        fooled = problem.is_fooled(backend.forward(problem.f, point), label)
        steps = backend.xp.where(problem.is_open, label * 0 + 1, label * 0)
        return problem.make_result(point, fooled, steps)
