"""Division whose result and gradient stay finite where the denominator is 0."""

from __future__ import annotations

from deepdefense.seam.contract import Array, Backend

__all__ = ["divide"]


def divide(
    backend: Backend, numerator: Array, denominator: Array, *, where: Array, keep: bool = False
) -> Array:
    """Return numerator / denominator for the entries where the mask `where` is True.

    Each other entry of the result is 0 with gradient 0 or, with `keep`, equals its numerator. These
    entries are divided by 1 instead of their denominator. Dividing by a denominator of 0 and
    masking only the quotient would leave NaN in the gradient.
    """
    xp = backend.xp
    quotient = numerator / xp.where(where, denominator, xp.ones_like(denominator))
    return quotient if keep else xp.where(where, quotient, xp.zeros_like(quotient))
