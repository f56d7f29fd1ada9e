"""The settings of an evaluation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from deepdefense.evaluation.presets import build_suite
from deepdefense.seam.frozen_dict import FrozenDict
from deepdefense.seam.validation import check_count, check_number, check_order, to_python_numbers

__all__ = ["EvaluationPlan"]


@dataclass(frozen=True)
class EvaluationPlan:
    """Every setting of an evaluation that may change a figure.

    `rho` holds the steps, overshoot and candidates of the DeepFool that measures rho.

    Raises:
        InputError: a setting is out of range.
    """

    preset: str
    p: float
    eps: tuple[float, ...]  # empty: the median distance of the minimum-norm attacks
    seed: int
    batch_size: int
    rho: FrozenDict[Any]

    def __post_init__(self) -> None:
        """Check every setting before anything is computed."""
        to_python_numbers(self)
        check_count("batch_size", self.batch_size, least=1)
        check_count("seed", self.seed, least=0)
        build_suite(self.preset, self.p, self.eps, 2)

    @classmethod
    def from_arguments(
        cls,
        *,
        preset: str,
        p: float,
        eps: float | Sequence[float] | None,
        seed: int,
        batch_size: int,
        rho: Mapping[str, Any],
    ) -> EvaluationPlan:
        """Make a plan from the arguments of `evaluate`."""
        radii = [] if eps is None else np.atleast_1d(np.asarray(eps)).tolist()
        for radius in radii:
            check_number("eps", radius, least=0)
        order = check_order(p)
        return cls(preset, order, tuple(map(float, radii)), seed, batch_size, FrozenDict(rho))
