"""Parseval networks (Cisse, Bojanowski, Grave, Dauphin, Usunier, ICML 2017)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from einops import rearrange

from deepdefense.defenses.objective import Objective
from deepdefense.seam.contract import Array, Backend
from deepdefense.seam.settings import document_settings, real_number, setting

__all__ = ["Parseval"]


@document_settings
@dataclass(frozen=True)
class Parseval(Objective):
    """Plain training that keeps the rows of every weight matrix nearly orthonormal.

    After each optimizer step, every weight matrix W is replaced by (1 + beta) W - beta W W^T W.
    This is a gradient step with step size beta on the function ||W W^T - I||^2 / 4. If W has more
    rows than columns, W^T takes the place of W, so that the columns are kept nearly orthonormal.

    For a convolution kernel [o i s t], W is the kernel as a matrix [o (i s t)], multiplied by
    sqrt(s t) because each input pixel lies in s t windows. The result is divided by this factor.

    Source: Cisse et al. (2017), "Parseval networks: improving robustness to adversarial examples",
    section 4.
    """

    beta: float = setting(
        1e-4,
        "step size; must be much smaller than 1 / s^2, where s is the largest singular value of W",
        real_number(0, below=1),
    )

    def constrain(self, backend: Backend, weights: Mapping[str, Array]) -> Mapping[str, Array]:
        """Return all weight matrices and kernels by name, after a step towards orthonormality."""
        return {
            name: self._orthonormalise(backend, weight)
            for name, weight in weights.items()
            if len(weight.shape) in (2, 4)
        }

    def _orthonormalise(self, backend: Backend, weight: Array) -> Array:
        """Return the weight [o ...] after one step towards orthonormal rows (or columns)."""
        shape = tuple(weight.shape)
        scale = math.sqrt(math.prod(shape[2:]))
        rows = scale * backend.xp.reshape(weight, (shape[0], -1))
        tall = rows.shape[0] > rows.shape[1]
        rows = rearrange(rows, "o i -> i o") if tall else rows
        moved = (1 + self.beta) * rows - self.beta * (rows @ rearrange(rows, "o i -> i o")) @ rows
        moved = rearrange(moved, "i o -> o i") if tall else moved
        return backend.xp.reshape(moved / scale, shape)
