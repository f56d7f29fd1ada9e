"""The penalty by the chord method, for one example."""

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
    """The end of `approach_boundary`: shift, |dg| / d||shift||_p there, classes of the steps."""

    shift: Array
    slope: float
    path: tuple[tuple[int, int], ...]


def find_nearest_point(
    x: Array, gap: float, w: Array, p: float, bounds: tuple[float, float]
) -> tuple[Array, float]:
    """Return the shortest r with <w, r> = |gap| and x + r within bounds, and |dg| / d||r||_p.

    Without bounds, r = t |w|^(q-1) sign w. With bounds, and p > 1, it is the same for a larger t,
    clipped. The first iteration takes the t without bounds, three more add the missing distance.
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
    """Move to the nearest point, seen from x, of the hyperplane linearised at the last point.

    The hyperplane at x + r is g + <w, r' - r> = 0 in r', with g and w = grad g there. Among the
    candidates it is the one nearest to x, without regard to bounds. A correctly classified example
    moves away from y, a misclassified one from the best other class to y.
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
    """Extend the end of `approach_boundary` to the boundary by its slope (the chord method).

    With its shift r, the length is ||r||_p - g(b) / slope at b = x + r, or ||r||_p if that is not
    positive. Without bounds the slope is ||w||_q, with w the normal of the last step. Return the
    length and b.
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
    """Return the penalty by `extend_chord`, and its gradient with b and the slope held fixed."""
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
