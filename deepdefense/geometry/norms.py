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

# Below this 2-norm too much may be lost of squares that vanish: in float32 those of all that is
# smaller than 1e-19 do.
SMALL = 1e-15


def dual(p: float) -> float:
    """The order q with 1/p + 1/q = 1.

    >>> dual(2.0), dual(1.0), dual(math.inf), dual(3.0)
    (2.0, inf, 1.0, 1.5)
    """
    if p == 1:
        return math.inf
    return 1.0 if p == math.inf else p / (p - 1)


def _power(backend: Backend, base: Array, exponent: float) -> Array:
    """Base ** exponent for base >= 0; 0 with gradient 0 where base is 0."""
    xp = backend.xp
    zero = base == 0
    power = xp.exp(exponent * xp.log(xp.where(zero, xp.ones_like(base), base)))
    return xp.where(zero, xp.zeros_like(base), power)


def _scaled(backend: Backend, v: Array) -> tuple[Array, Array]:
    """Rows divided by their largest absolute entry, and that entry [... 1], a constant."""
    xp = backend.xp
    # The largest of |v|, without an array of them: to allocate it took longer than all the rest.
    highest, lowest = (reduce(v, "... d -> ... 1", which) for which in ("max", "min"))
    largest = backend.stop_gradient(xp.maximum(highest, -lowest))
    return divide(backend, v, largest, where=largest != 0, keep=True), largest


def _length(backend: Backend, u: Array, p: float) -> Array:
    """||u||_p of scaled rows, [... d] -> [... 1], at least 1; a zero row counts as 1."""
    xp = backend.xp
    if p == 2:
        total = reduce(u * u, "... d -> ... 1", "sum")
        return xp.sqrt(xp.where(total == 0, xp.ones_like(total), total))
    size = u * backend.stop_gradient(xp.sign(u))  # |u|, whose derivative at 0 is 0 everywhere
    powers = size if p in (1, math.inf) else _power(backend, size, p)
    total = reduce(powers, "... d -> ... 1", "max" if p == math.inf else "sum")
    total = xp.where(total == 0, xp.ones_like(total), total)
    return total if p in (1, math.inf) else _power(backend, total, 1 / p)


def norm(backend: Backend, v: Array, p: float) -> Array:
    """||v||_p = (sum_i |v_i|^p)^(1/p), [... d] -> [...]; its gradient at a zero row is zero."""
    u, largest = _scaled(backend, v)
    return rearrange(largest * _length(backend, u, p), "... 1 -> ...")


def constant_norm(backend: Backend, v: Array, p: float) -> Array:
    """`norm` of many long rows that need no derivative, [... d] -> [...].

    For p = 2 by the framework's own kernel, if no square overflowed in it or vanished that counts:
    it makes no arrays as large as `v`, which is what `norm` takes its time over.
    """
    if p == 2 and backend.is_concrete(v):
        found = backend.euclidean(v)
        if backend.to_numpy(backend.xp.all((found > SMALL) & (found < math.inf))):
            return found
    return norm(backend, v, p)


def steepest_direction(backend: Backend, w: Array, p: float) -> tuple[Array, Array]:
    """The unit direction along which a linear function with gradient w rises fastest.

    u = argmax { <w, u> : ||u||_p <= 1 } = |w|^(q-1) sign(w) / ||w||_q^(q-1), and the rise is
    ||w||_q, with q dual to p. For p = 1 it is the coordinate of largest |w_i| (the first one).

    Shapes: [b d] -> ||w||_q [b], u [b d]; both are zero where w is.
    """
    xp = backend.xp
    q = dual(p)
    scaled, largest = _scaled(backend, w)
    length = _length(backend, scaled, q)
    if q == 1:
        direction = xp.sign(w)
    elif q == 2:
        direction = scaled / length
    elif q == math.inf:
        direction = xp.sign(w) * backend.one_hot(xp.argmax(xp.abs(w), 1), w.shape[1], w)
    else:
        direction = xp.sign(w) * _power(backend, xp.abs(scaled) / length, q - 1)
    return rearrange(largest * length, "... 1 -> ..."), direction
