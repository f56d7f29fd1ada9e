"""The paper's measuring protocol."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["RHO_ATTACK"]

# DeepFool's settings when it measures rho, whatever settings the penalty of training has.
RHO_ATTACK: Mapping[str, Any] = {"steps": 50, "overshoot": 0.02, "candidates": 10}
