"""Search for the nearest decision boundary, for one example at a time."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from deepdefense_numpy.networks import Array, TinyNetwork
from deepdefense_numpy.norms import distance, norm, steepest

__all__ = [
    "MIN_STEP",
    "SearchResult",
    "argmax",
    "deepfool",
    "is_blocked",
    "is_finite",
    "reach_label",
]

MIN_STEP = 16.0 * float(np.finfo(np.float64).eps)  # least length of a step, divided by ||x||_p


@dataclass(frozen=True, eq=False)
class SearchResult:
    """The result of `deepfool` or `reach_label` for one example.

    `shift` is the sum of the steps r_i, and `delta` = (1 + overshoot) shift the perturbation, both
    clipped to the bounds. `success` says whether the class predicted at x + delta differs from the
    base class (`deepfool`) or is y (`reach_label`). `steps` is the number of steps, and `path`
    holds the base class and target class of each.
    """

    delta: Array
    shift: Array
    success: bool
    steps: int
    path: tuple[tuple[int, int], ...]


def is_finite(v: Array) -> bool:
    """Return whether every entry of v is finite."""
    return all(math.isfinite(float(t)) for t in v.flat)


def argmax(scores: Array) -> int:
    """Return the class with the highest score, or the first of several such classes."""
    best = 0
    for j in range(1, len(scores)):
        if scores[j] > scores[best]:
            best = j
    return best


def is_blocked(point: Array, w: Array, bounds: tuple[float, float]) -> npt.NDArray[np.bool_]:
    """Return a mask of the coordinates at which the point is at a bound and w points beyond it."""
    return (point <= bounds[0]) & (w < 0) | (point >= bounds[1]) & (w > 0)


def deepfool(
    network: TinyNetwork,
    x: Array,
    y: int | None = None,
    *,
    p: float = 2.0,
    steps: int = 50,
    overshoot: float = 0.02,
    candidates: int = 10,
    bounds: tuple[float, float] | None = None,
) -> SearchResult:
    """Run DeepFool (Moosavi-Dezfooli, Fawzi and Frossard, 2016) on one example x of any shape.

    Step i adds r_i to `shift`, the sum of the steps so far. The base class is y, or the predicted
    class if y is None. At x + shift, let g_j = f_j - f_base and w_j = grad_x g_j. Then

        l = argmin_j |g_j| / ||w_j||_q,    r_i = (|g_l| / ||w_l||_q^q) |w_l|^(q-1) sign(w_l).

    A step is at least 16 machine epsilons times ||x||_p long. With bounds and p < 2, w_j is set to
    zero at the coordinates where x + shift is at a bound and w_j points beyond it.

    With bounds, x + shift is clipped after the step. Let e = x + (1 + 0.9 overshoot) shift, also
    clipped. The step is corrected once if two conditions hold:

    - The length of r_i is at most a tenth of the length of `shift` before the step.
    - e is still short of the hyperplane g_l + <w_l, r> = 0, with r measured from the point before
      the step.

    The correction adds to `shift` the shortest step that would lead from e to the hyperplane along
    the coordinates in which bounds do not block e.
    """
    zero = np.zeros(x.shape, dtype=np.float64)
    if not is_finite(x) or not is_finite(network.logits(x)):
        return SearchResult(zero, zero, False, 0, ())
    clean = network.logits(x)
    if y is not None and argmax(clean) != y:
        return SearchResult(zero, zero, True, 0, ())
    base = argmax(clean)
    ranked = sorted(range(len(clean)), key=lambda j: (-float(clean[j]), j))[:candidates]
    shortest = MIN_STEP * norm(x, p)

    delta, shift, path = zero, zero, list[tuple[int, int]]()
    while len(path) < steps:
        scores, gradients = network.logits(x + shift), network.class_gradients(x + shift)
        if bounds is not None and p < 2:
            normals = gradients - gradients[base]
            gradients = np.where(is_blocked(x + shift, normals, bounds), gradients[base], gradients)
        nearest, target = math.inf, None
        for j in ranked:
            if j != base:
                away = distance(float(scores[j] - scores[base]), gradients[j] - gradients[base], p)
                if away < nearest:
                    nearest, target = away, j
        if target is None:
            break
        r = max(nearest, shortest) * steepest(gradients[target] - gradients[base], p)
        path.append((base, target))
        before, shift = shift, shift + r
        delta = (1.0 + overshoot) * shift
        if bounds is not None:
            shift = np.clip(x + shift, bounds[0], bounds[1]) - x
            delta = np.clip(x + (1.0 + overshoot) * shift, bounds[0], bounds[1]) - x
            end = np.clip(x + (1.0 + 0.9 * overshoot) * shift, bounds[0], bounds[1])
            w = gradients[target] - gradients[base]
            gap = float(scores[target] - scores[base]) + float(np.sum(w * (end - x - before)))
            w = np.where(is_blocked(end, w, bounds), 0.0, w)
            away = distance(gap, w, p)
            if norm(r, p) <= 0.1 * norm(before, p) and gap < 0.0 and math.isfinite(away):
                shift = np.clip(x + shift + away * steepest(w, p), bounds[0], bounds[1]) - x
                delta = np.clip(x + (1.0 + overshoot) * shift, bounds[0], bounds[1]) - x
        scores = network.logits(x + delta)
        if is_finite(scores) and argmax(scores) != base:
            return SearchResult(delta, shift, True, len(path), tuple(path))
    return SearchResult(delta, shift, False, len(path), tuple(path))


def reach_label(
    network: TinyNetwork, x: Array, y: int, *, p: float, steps: int, overshoot: float
) -> SearchResult:
    """Search from a misclassified x towards its label (Yan, Guo and Zhang, 2018).

    This is `deepfool` without bounds and with y as the only target class. The base class is the
    class other than y with the highest logit at the iterate x + shift. The search ends once
    x + (1 + overshoot) shift is classified as y.
    """
    zero = np.zeros(x.shape, dtype=np.float64)
    if not is_finite(x) or not is_finite(network.logits(x)):
        return SearchResult(zero, zero, False, 0, ())
    if argmax(network.logits(x)) == y:
        return SearchResult(zero, zero, True, 0, ())
    shortest = MIN_STEP * norm(x, p)

    delta, shift, path = zero, zero, list[tuple[int, int]]()
    while len(path) < steps:
        scores, gradients = network.logits(x + shift), network.class_gradients(x + shift)
        base = argmax(np.where(np.arange(len(scores)) == y, -math.inf, scores))
        w = gradients[y] - gradients[base]
        away = distance(float(scores[y] - scores[base]), w, p)
        if not math.isfinite(away):
            break
        path.append((base, int(y)))
        shift = shift + max(away, shortest) * steepest(w, p)
        delta = (1.0 + overshoot) * shift
        scores = network.logits(x + delta)
        if is_finite(scores) and argmax(scores) == y:
            return SearchResult(delta, shift, True, len(path), tuple(path))
    return SearchResult(delta, shift, False, len(path), tuple(path))
