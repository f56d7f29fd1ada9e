"""Division whose result and gradient stay finite where the denominator is 0."""

from __future__ import annotations

from deepdefense.seam.contract import Array, Backend

__all__ = ["divide"]


def divide(
    backend: Backend, numerator: Array, denominator: Array, *, where: Array, keep: bool = False
) -> Array:
    """Return numerator / denominator for the entries where the mask `where` is True.

    Each other entry of the result is 0 with gradient 0 or, with `keep`, equals its numerator. Its
    denominator is replaced by 1 before the division, because 0 would leave NaN in the gradient.
    """
    xp = backend.xp
    quotient = numerator / xp.where(where, denominator, xp.ones_like(denominator))
    return quotient if keep else xp.where(where, quotient, xp.zeros_like(quotient))
