"""Division whose result and gradient stay finite where the denominator is 0."""

from __future__ import annotations

from deepdefense.seam.contract import Array, Backend

__all__ = ["divide"]


def divide(
    backend: Backend, numerator: Array, denominator: Array, *, where: Array, keep: bool = False
) -> Array:
    """Return numerator / denominator for the entries where the mask `where` is True.

    The other entries are 0 with gradient 0 or, with `keep`, equal to the numerator. They are
    divided by 1 instead of their denominator: masking the quotient alone would leave NaN in the
    gradient.
    """
    xp = backend.xp
    quotient = numerator / xp.where(where, denominator, xp.ones_like(denominator))
    return quotient if keep else xp.where(where, quotient, xp.zeros_like(quotient))
