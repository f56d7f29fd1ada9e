"""What an evaluation is to do: every setting that may change a figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from deepdefense.evaluation.provenance import NetworkInfo
from deepdefense.evaluation.suite import build_suite
from deepdefense.seam.validation import check_count, check_number, check_order, to_python_numbers

__all__ = ["EvaluationPlan", "Provenance"]


@dataclass(frozen=True)
class EvaluationPlan:
    """The attacks of a preset in the norm p, within each eps; and the DeepFool of rho.

    `rho` has its steps, overshoot and candidates.

    Raises:
        InputError: a setting is out of range.
    """

    preset: str
    p: float
    eps: tuple[float, ...]
    seed: int
    batch_size: int
    rho: tuple[tuple[str, Any], ...]

    def __post_init__(self) -> None:
        """Check every setting, before anything is computed."""
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
        """From arguments as users give them."""
        radii = [] if eps is None else np.atleast_1d(np.asarray(eps)).tolist()
        for radius in radii:
            check_number("eps", radius, least=0)
        order = check_order(p)
        return cls(preset, order, tuple(map(float, radii)), seed, batch_size, tuple(rho.items()))


@dataclass(frozen=True)
class Provenance:
    """What a report says of the networks and the data."""

    network: NetworkInfo
    reference: NetworkInfo
    data: Mapping[str, Any]
