"""DeepFool (Moosavi-Dezfooli, Fawzi, Frossard, CVPR 2016), batched, in any p-norm."""

from __future__ import annotations

from einops import rearrange

from deepdefense.attacks.common.problem import Perturbation
from deepdefense.geometry.bounds import Bounds
from deepdefense.geometry.open_call import open_call
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
    """Find a small perturbation that moves each example just across its nearest decision boundary.

    Let k be the base class, which is the label to leave. The search starts at x_0 = x. At each
    iterate x_i, the gap of candidate class j is g_j = f_j - f_k, and its normal is w_j = grad g_j.
    The step r_i leads to the nearest linearised boundary, whose index is l:

        l = argmin_j |g_j| / ||w_j||_q,    r_i = (|g_l| / ||w_l||_q^q) |w_l|^(q-1) sign(w_l),
        x_{i+1} = x_i + r_i.

    The search stops once the prediction at the point x + (1 + overshoot) sum_i r_i differs from k,
    and returns this point.

    Args:
        model: a function from a batch [b ...] to logits [b k], k >= 2; called in inference mode.
        x: examples [b ...] of any shape, float32 or float64, in the units that the model expects.
        y: labels [b] to leave; None: the predicted classes. An example that is already
            misclassified is not moved, and counts as a success in 0 steps.
        p: order of the norm to minimise, from 1 to inf; q is the order of its dual norm.
        steps: largest number of linearisations for one example.
        overshoot: how far past the boundary to go, as a share of the perturbation.
        candidates: number of classes to consider, the base class included: those with the highest
            clean logits. Each class except the base class costs one gradient per step.
        bounds: range (low, high) of perturbed examples, as numbers or arrays of an example's shape.
            Every iterate is clipped to this range. For p < 2, whose steps move only a few
            coordinates, components of w_j that lead out of the range are set to 0. If clipping
            shortens a small step (at most a tenth of the perturbation so far), the step is extended
            at once, along the coordinates that are not at their bound.

    Returns:
        `Perturbation` (x, delta, success, steps); delta includes the overshoot.

    Every step is at least 16 machine epsilons times ||x||_p long, so that an example exactly on a
    boundary also crosses it. The search stops without success if all gradients vanish or are so
    small that a step overflows, or if the input or the logits are not finite.

    Raises:
        InputError: an argument is out of range or has the wrong shape, type or framework.

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
