"""rho: the size of a perturbation relative to the size of its example."""

from __future__ import annotations

import math

from deepdefense.errors import InputError
from deepdefense.geometry.arithmetic import divide
from deepdefense.geometry.norms import norm
from deepdefense.seam.choosing import backend_of
from deepdefense.seam.contract import Array
from deepdefense.seam.validation import check_order

__all__ = ["rho"]


def rho(delta: Array, x: Array, p: float = 2) -> Array:
    """Return the size of each perturbation relative to its example.

    rho = ||delta||_p / ||x||_p. Both norms are those of flattened arrays, in the units of the
    network's input.

    Shapes: delta [b ...], x [b ...] -> [b]. For an all-zero example, whose norm is 0, rho is set to
    0, which never overstates robustness.

    Raises:
        InputError: shapes or frameworks differ, or p is not from 1 to inf.

    >>> import numpy as np
    >>> rho(np.array([[0.3, 0.4]]), np.array([[0.0, 2.0]])).round(6)
    array([0.25])

    Source: Moosavi-Dezfooli, Fawzi and Frossard (2016), section 4. The paper's rho is the mean over
    a test set.
    """
    backend = backend_of(delta, x)
    order = check_order(p)
    if tuple(delta.shape) != tuple(x.shape):
        raise InputError(f"delta {tuple(delta.shape)} and x {tuple(x.shape)} must have one shape")
    rows = (-1, math.prod(tuple(x.shape[1:])))
    size, scale = (norm(backend, backend.xp.reshape(value, rows), order) for value in (delta, x))
    return divide(backend, size, scale, where=scale != 0)
