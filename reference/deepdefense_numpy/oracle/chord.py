"""Compute the penalty by the chord method (`DeepDefense(gradient="chord")`), for one example.

The chord method takes a few steps towards the decision boundary. Then it estimates the remaining
distance from the gap and its slope at the point reached.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from deepdefense_numpy.networks import Array, TinyNetwork, central_differences
from deepdefense_numpy.norms import distance, dual, norm, steepest
from deepdefense_numpy.oracle.penalty import evaluate_penalty, has_rho
from deepdefense_numpy.oracle.search import MIN_STEP, argmax, is_blocked

__all__ = ["Landing", "approach_boundary", "chord_penalty"]


class Landing(NamedTuple):
    """The result of `approach_boundary` for one example."""

    shift: Array  # the point reached, minus x
    slope: float  # |dg| / d||shift||_p at the point reached, for the gap g of the last step
    path: tuple[tuple[int, int], ...]  # the base and target class of each step


def find_nearest_point(
    x: Array, gap: float, w: Array, p: float, bounds: tuple[float, float]
) -> tuple[Array, float]:
    """Return the shortest r with <w, r> = |gap| and x + r within bounds, and the slope at x + r.

    The first of four iterations takes the step without bounds and clips it. Each later iteration
    moves the coordinates that no bound blocks, to close the part of the gap that clipping has left,
    and clips again. The slope is the change of <w, r> per unit of ||r||_p if the coordinates that
    no bound blocks moved further.
    """
    point, free = x, w
    for _ in range(4):
        missing = max(abs(gap) - float(np.sum(w * (point - x))), 0.0)
        if np.any(free != 0.0):
            point = np.clip(point + distance(missing, free, p) * steepest(free, p), *bounds)
        free = np.where(is_blocked(point, w, bounds), 0.0, w)
    r = point - x
    if not np.any(free != 0.0) or not np.any(r != 0.0):
        return r, 0.0
    more = 1e-5 * norm(r, p) * steepest(free, p)
    return r, 2.0 * float(np.sum(w * more)) / (norm(r + more, p) - norm(r - more, p))


def approach_boundary(
    network: TinyNetwork,
    x: Array,
    y: int,
    *,
    p: float,
    steps: int,
    candidates: int,
    bounds: tuple[float, float] | None = None,
) -> Landing:
    """Move x towards the decision boundary by up to `steps` linearisations.

    Let x + r be the current point, and w the gradient of a gap g there. The step moves to the point
    x + r' nearest to x on the hyperplane g(x + r) + <w, r' - r> = 0.

    For a correctly classified x, g = f_j - f_y, where j is the candidate class whose hyperplane is
    nearest to x, bounds ignored. For a misclassified x, g = f_y - f_j, where j is the class other
    than y with the highest logit. The search stops early if no hyperplane is at a finite distance,
    or if the bounds allow no step.
    """
    clean = network.logits(x)
    right = argmax(clean) == y
    ranked = sorted(range(len(clean)), key=lambda j: (-float(clean[j]), j))[:candidates]
    shortest = MIN_STEP * norm(x, p)
    shift, slope = np.zeros(x.shape, dtype=np.float64), 0.0
    path = list[tuple[int, int]]()
    for _ in range(steps):
        scores, gradients = network.logits(x + shift), network.class_gradients(x + shift)
        rival = argmax(np.where(np.arange(len(scores)) == y, -math.inf, scores))
        pairs = [(y, j) for j in ranked if j != y] if right else [(rival, y)]
        nearest, step = math.inf, None
        for base, target in pairs:
            w = gradients[target] - gradients[base]
            away = distance(float(scores[target] - scores[base]) - float((w * shift).sum()), w, p)
            if away < nearest:
                nearest, step = away, (base, target, w)
        if step is None:
            break
        base, target, w = step
        length, rise = max(nearest, shortest), norm(w, dual(p))
        there, slope_there = length * steepest(w, p), rise
        if bounds is not None:
            there, slope_there = find_nearest_point(x, length * rise, w, p, bounds)
            if slope_there == 0.0:
                break
        shift, slope = there, slope_there
        path.append((base, target))
    return Landing(shift, slope, tuple(path))


def extend_chord(network: TinyNetwork, x: Array, landing: Landing, p: float) -> tuple[float, Array]:
    """Return the estimated distance from x to the boundary, and the point b = x + landing.shift.

    With r = landing.shift and g the gap of the last step, the distance is estimated as
    ||r||_p - g(b) / landing.slope, or as ||r||_p if this difference is not positive.
    """
    base, target = landing.path[-1]
    b = x + landing.shift
    scores = network.logits(b)
    length = norm(landing.shift, p) - float(scores[target] - scores[base]) / landing.slope
    return (length if length > 0 else norm(landing.shift, p)), b


def chord_penalty(
    network: TinyNetwork,
    x: Array,
    y: int,
    *,
    lam: float = 15.0,
    c: float = 25.0,
    d: float = 5.0,
    p: float = 2.0,
    steps: int = 1,
    overshoot: float = 0.02,
    candidates: int = 2,
    bounds: tuple[float, float] | None = None,
) -> tuple[float, Array]:
    """Return the penalty for the distance of `extend_chord`, and its gradient in the parameters.

    The gradient is taken with the point b of `extend_chord` and the slope held fixed.
    """
    zero = np.zeros_like(network.parameters())
    if not has_rho(network, x):
        return 0.0, zero
    right = argmax(network.logits(x)) == y
    landing = approach_boundary(
        network, x, y, p=p, steps=steps, candidates=candidates, bounds=bounds
    )
    if not landing.path:
        return lam, zero
    length, b = extend_chord(network, x, landing, p)
    base, target = landing.path[-1]
    relative = (1.0 + overshoot) * length / norm(x, p)
    d_g = central_differences(network, lambda n: float(n.logits(b)[target] - n.logits(b)[base]))
    d_rho = (1.0 + overshoot) * -d_g / landing.slope / norm(x, p)
    value, slope_in_rho = evaluate_penalty(right, relative, lam, c, d)
    return value, slope_in_rho * d_rho
