"""p-norms of the rows of an array (its last axis), their duals and their steepest directions.

Every function is differentiable where the mathematics is, and has gradient zero instead of NaN at
a zero row. Rows are scaled by their largest entry first, so that neither squares nor high powers
overflow or vanish.
"""

from __future__ import annotations

import math

from einops import rearrange, reduce

from deepdefense.geometry.arithmetic import divide
from deepdefense.seam.contract import Array, Backend

__all__ = ["constant_norm", "dual", "norm", "steepest_direction"]

# A smaller 2-norm, computed without scaling, is not accurate: in float32 the squares of entries
# below 1e-19 vanish.
LEAST_ACCURATE_NORM = 1e-15


def dual(p: float) -> float:
    """Return the order q with 1/p + 1/q = 1.

    >>> dual(2.0), dual(1.0), dual(math.inf), dual(3.0)
    (2.0, inf, 1.0, 1.5)
    """
    if p == 1:
        return math.inf
    return 1.0 if p == math.inf else p / (p - 1)


def _power(backend: Backend, base: Array, exponent: float) -> Array:
    """Return base ** exponent for base >= 0; 0 with gradient 0 where base is 0."""
    xp = backend.xp
    zero = base == 0
    power = xp.exp(exponent * xp.log(xp.where(zero, xp.ones_like(base), base)))
    return xp.where(zero, xp.zeros_like(base), power)


def _scale_rows(backend: Backend, v: Array) -> tuple[Array, Array]:
    """Divide rows by their largest absolute entry; return that entry too, a constant [... 1]."""
    xp = backend.xp
    # max |v_i| from the maximum and the minimum: an array of |v_i| is costly to allocate.
    highest, lowest = (reduce(v, "... d -> ... 1", which) for which in ("max", "min"))
    largest = backend.stop_gradient(xp.maximum(highest, -lowest))
    return divide(backend, v, largest, where=largest != 0, keep=True), largest


def _scaled_norm(backend: Backend, u: Array, p: float) -> Array:
    """Return ||u||_p of scaled rows, [... d] -> [... 1]: at least 1, and 1 for a zero row."""
    xp = backend.xp
    if p == 2:
        total = reduce(u * u, "... d -> ... 1", "sum")
        return xp.sqrt(xp.where(total == 0, xp.ones_like(total), total))
    size = u * backend.stop_gradient(xp.sign(u))  # |u| with derivative 0 at 0 in every framework
    powers = size if p in (1, math.inf) else _power(backend, size, p)
    total = reduce(powers, "... d -> ... 1", "max" if p == math.inf else "sum")
    total = xp.where(total == 0, xp.ones_like(total), total)
    return total if p in (1, math.inf) else _power(backend, total, 1 / p)


def norm(backend: Backend, v: Array, p: float) -> Array:
    """Return ||v||_p = (sum_i |v_i|^p)^(1/p), [... d] -> [...]; its gradient at a zero row is 0."""
    u, largest = _scale_rows(backend, v)
    return rearrange(largest * _scaled_norm(backend, u, p), "... 1 -> ...")


def constant_norm(backend: Backend, v: Array, p: float) -> Array:
    """Return `norm` of many long rows, without a derivative: [... d] -> [...].

    For p = 2 the framework's own kernel computes it without temporary arrays as large as `v`,
    unless its squares overflowed or too many of them vanished.
    """
    if p == 2 and backend.is_concrete(v):
        norms = backend.euclidean(v)
        accurate = (norms > LEAST_ACCURATE_NORM) & (norms < math.inf)
        if backend.to_numpy(backend.xp.all(accurate)):
            return norms
    return norm(backend, v, p)


def steepest_direction(backend: Backend, w: Array, p: float) -> tuple[Array, Array]:
    """Return the slope and the unit direction along which a linear function rises fastest.

    For the gradient w it is u = argmax { <w, u> : ||u||_p <= 1 } =
    |w|^(q-1) sign(w) / ||w||_q^(q-1), and the slope is ||w||_q, with q dual to p. For p = 1, u is
    the coordinate of the largest |w_i| (the first of equals).

    Shapes: [b d] -> ||w||_q [b], u [b d]; both are zero where w is.
    """
    xp = backend.xp
    q = dual(p)
    scaled, largest = _scale_rows(backend, w)
    length = _scaled_norm(backend, scaled, q)
    if q == 1:
        direction = xp.sign(w)
    elif q == 2:
        direction = scaled / length
    elif q == math.inf:
        direction = xp.sign(w) * backend.one_hot(xp.argmax(xp.abs(w), 1), w.shape[1], w)
    else:
        direction = xp.sign(w) * _power(backend, xp.abs(scaled) / length, q - 1)
    return rearrange(largest * length, "... 1 -> ..."), direction
