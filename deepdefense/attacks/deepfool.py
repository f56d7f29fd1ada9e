"""DeepFool (Moosavi-Dezfooli, Fawzi, Frossard, CVPR 2016), batched, in any p-norm."""

from __future__ import annotations

from einops import rearrange

from deepdefense.attacks.common.problem import Perturbation
from deepdefense.geometry.bounds import Bounds
from deepdefense.geometry.call import open_call
from deepdefense.geometry.search import SearchSettings, search_boundary
from deepdefense.seam.contract import Array, Model
from deepdefense.seam.validation import check_count, check_number, check_order

__all__ = ["deepfool"]


def deepfool(
    model: Model,
    x: Array,
    y: Array | None = None,
    *,
    p: float = 2,
    steps: int = 50,
    overshoot: float = 0.02,
    candidates: int = 10,
    bounds: Bounds | None = None,
) -> Perturbation:
    """Find a small perturbation that takes each example just across its nearest decision boundary.

    At each iterate x_i, with gaps g_j = f_j - f_k to the base class k and normals w_j = grad g_j,

        l = argmin_j |g_j| / ||w_j||_q,    x_{i+1} = x_i + |g_l| / ||w_l||_q^q |w_l|^(q-1) sign w_l

    until the prediction at x + (1 + overshoot) sum_i r_i differs from k; that is the result.

    Args:
        model: a batch [b ...] -> logits [b k], k >= 2; called in inference mode.
        x: examples [b ...] of any shape, float32 or float64, in the units the model takes.
        y: labels [b] to leave; None: the predicted class. An example that is already misclassified
            is not moved, a success in 0 steps.
        p: order of the norm that is kept small, from 1 to inf; q is its dual.
        steps: largest number of linearisations for one example.
        overshoot: how far past the boundary to go, as a share of the perturbation.
        candidates: classes of the highest clean logits to consider, the base class included. Each
            but the base class costs a gradient per step; few candidates often find the same point.
        bounds: (low, high), the range of perturbed examples: numbers, or arrays of their shape.
            Every iterate is clipped to it. For p < 2, whose steps move few coordinates, w_j omits
            coordinates at a bound that it leads out of. If clipping leaves a small step (at most a
            tenth of the path so far) short of its plane, it moves on at once, along the coordinates
            that are not at their bound.

    Returns:
        `Perturbation` (x, delta, success, steps); delta includes the overshoot.

    A step of at least 16 machine epsilons of ||x||_p carries an example on the boundary across. An
    example whose gradients all vanish (or are so small that a step overflows), or whose input or
    logits are not finite, stops unsuccessfully where it is.

    Raises:
        InputError: an argument is out of range, or of the wrong shape, type or framework.

    >>> import numpy as np
    >>> weight = np.array([[3.0, 4.0], [0.0, 0.0]])
    >>> linear = lambda x: x @ weight.T
    >>> found = deepfool(linear, np.array([[1.0, 0.5]]))  # distance 5 / ||(3, 4)|| = 1
    >>> found.delta.round(6), found.success, found.steps
    (array([[-0.612, -0.816]]), array([ True]), array([1]))

    Source: Moosavi-Dezfooli, Fawzi and Frossard (2016), "DeepFool: a simple and accurate method to
    fool deep neural networks", algorithms 1 and 2, and section 3.3 for other norms.
    """
    order = check_order(p)
    steps = check_count("steps", steps, least=1)
    candidates = check_count("candidates", candidates, least=2)
    overshoot = check_number("overshoot", overshoot, least=0)
    settings = SearchSettings(order, steps, float(overshoot), candidates)
    with open_call(model, x, y, bounds=bounds) as call:
        search, _, _ = search_boundary(call.backend, call.f, call.x, y, settings, box=call.box)
    perturbed = call.x + (1 + overshoot) * search.shift
    if call.box is not None:
        moved = rearrange(search.steps > 0, "b -> b 1")
        perturbed = call.backend.xp.where(moved, call.box.clip(perturbed), call.x)
    delta = perturbed - call.x
    return Perturbation(
        call.unflatten(perturbed), call.unflatten(delta), search.success, search.steps
    )
