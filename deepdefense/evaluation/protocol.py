"""The paper's measuring protocol: DeepFool's settings for rho, whatever training uses."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["RHO_ATTACK"]

# The evaluation's attack: the paper's protocol, whatever the settings of training are.
RHO_ATTACK: Mapping[str, Any] = {"steps": 50, "overshoot": 0.02, "candidates": 10}
