"""p-norms of the rows of an array (its last axis), dual orders, and steepest directions.

Every function is differentiable wherever the norm is. At a row of zeros its gradient is 0, not NaN.
Each row is first divided by its largest absolute entry, so that neither squares nor high powers
overflow or vanish.
"""

from __future__ import annotations

import math

from einops import rearrange, reduce

from deepdefense.geometry.arithmetic import divide
from deepdefense.seam.contract import Array, Backend

__all__ = ["constant_norm", "dual", "norm", "steepest_direction"]

# A 2-norm below this limit is not accurate if its row was not scaled first: in float32 the squares
# of entries below 1e-19 vanish.
LEAST_ACCURATE_NORM = 1e-15


def dual(p: float) -> float:
    """Return the order q of the dual norm of the p-norm, with 1/p + 1/q = 1.

    >>> dual(2.0), dual(1.0), dual(math.inf), dual(3.0)
    (2.0, inf, 1.0, 1.5)
    """
    if p == 1:
        return math.inf
    return 1.0 if p == math.inf else p / (p - 1)


def _power(backend: Backend, base: Array, exponent: float) -> Array:
    """Return base ** exponent, elementwise, for base >= 0; for base 0, return 0 with gradient 0."""
    xp = backend.xp
    zero = base == 0
    power = xp.exp(exponent * xp.log(xp.where(zero, xp.ones_like(base), base)))
    return xp.where(zero, xp.zeros_like(base), power)


def _scale_rows(backend: Backend, v: Array) -> tuple[Array, Array]:
    """Return the rows divided by their largest absolute entries, and these entries [... 1].

    A row of zeros stays as it is. No gradient flows through the largest entries.
    """
    xp = backend.xp
    # Compute max |v_i| from the maximum and the minimum of v, because allocating an array of all
    # |v_i| would be costly.
    highest, lowest = (reduce(v, "... d -> ... 1", which) for which in ("max", "min"))
    largest = backend.stop_gradient(xp.maximum(highest, -lowest))
    return divide(backend, v, largest, where=largest != 0, keep=True), largest


def _scaled_norm(backend: Backend, u: Array, p: float) -> Array:
    """Return ||u||_p of rows scaled by `_scale_rows`: [... d] -> [... 1].

    For a row of zeros, return 1, so that callers can divide by the norm.
    """
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
    """Return ||v||_p like `norm`, for rows that need no gradient: [... d] -> [...].

    For p = 2 and concrete values, the framework's own kernel computes the norms without temporary
    arrays as large as `v`. In all other cases, and if one of the kernel's norms is too small or too
    large to be accurate, `norm` computes all of them.
    """
    if p == 2 and backend.is_concrete(v):
        norms = backend.euclidean(v)
        accurate = (norms > LEAST_ACCURATE_NORM) & (norms < math.inf)
        if backend.to_numpy(backend.xp.all(accurate)):
            return norms
    return norm(backend, v, p)


def steepest_direction(backend: Backend, w: Array, p: float) -> tuple[Array, Array]:
    """Return the slope and the unit direction along which a linear function rises fastest.

    For a linear function with gradient w, the direction is
    u = argmax { <w, u> : ||u||_p <= 1 } = |w|^(q-1) sign(w) / ||w||_q^(q-1),
    and the slope along u is ||w||_q, with q dual to p. For p = 1, only one coordinate of u is not
    0, the coordinate with the largest |w_i| (the first if several are equal).

    Shapes: w [b d] -> slope [b], u [b d]. For w = 0 both are 0.
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
