"""p-norms: distances to hyperplanes, and the direction of the nearest point on a hyperplane."""

from __future__ import annotations

import math

import numpy as np

from deepdefense_numpy.networks import Array


def norm(v: Array, p: float) -> float:
    """Return ||v||_p = (sum_i |v_i|^p)^(1/p) of the flattened v.

    It is computed from |v_i| / max_j |v_j|, whose powers do not overflow.
    """
    sizes = [abs(float(t)) for t in v.flat]
    if any(math.isnan(t) for t in sizes):
        return math.nan
    largest = max(sizes)
    if largest == 0.0 or math.isinf(largest) or math.isinf(p):
        return largest
    total = math.fsum(math.pow(t / largest, p) for t in sizes)
    return largest * math.pow(total, 1.0 / p)


def dual(p: float) -> float:
    """Return the dual exponent q = p / (p - 1), so that 1/p + 1/q = 1."""
    if not p >= 1.0:
        raise ValueError(f"p must be at least 1, got {p}")
    if p == 1.0:
        return math.inf
    if math.isinf(p):
        return 1.0
    return p / (p - 1.0)


def steepest(w: Array, p: float) -> Array:
    """Return u = (|w| / ||w||_q)^(q-1) sign(w), with ||u||_p = 1 and <w, u> = ||w||_q.

    Among the vectors of p-norm 1, u maximises <w, u>. For p = 1, u has one nonzero coordinate: the
    first of those with the largest |w_i|.
    """
    q = dual(p)
    length = norm(w, q)
    largest = int(np.argmax(np.abs(w)))
    u = np.zeros(w.size, dtype=np.float64)
    for i, t in enumerate(float(t) for t in w.flat):
        if p == 1.0:
            u[i] = math.copysign(1.0, t) if i == largest else 0.0
        elif t != 0.0:
            u[i] = math.copysign((abs(t) / length) ** (q - 1.0), t)
    return u.reshape(w.shape)


def distance(g: float, w: Array, p: float) -> float:
    """Return |g| / ||w||_q, the p-distance to the hyperplane g + <w, r> = 0; infinite if w = 0."""
    length = norm(w, dual(p))
    if length == 0.0 or not math.isfinite(length):
        return math.inf
    return abs(g) / length
