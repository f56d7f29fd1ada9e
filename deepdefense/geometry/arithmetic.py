"""Division that is safe to differentiate where the denominator vanishes."""

from __future__ import annotations

from deepdefense.seam.contract import Array, Backend

__all__ = ["divide"]


def divide(
    backend: Backend, numerator: Array, denominator: Array, *, where: Array, keep: bool = False
) -> Array:
    """Return numerator / denominator where `where` holds.

    Elsewhere the result is 0 with gradient 0, or with `keep` the numerator itself. The division is
    by 1 there: masking the quotient alone would leave NaN in the gradient.
    """
    xp = backend.xp
    quotient = numerator / xp.where(where, denominator, xp.ones_like(denominator))
    return quotient if keep else xp.where(where, quotient, xp.zeros_like(quotient))
