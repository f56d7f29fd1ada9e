"""The settings of an evaluation, checked before anything is computed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from deepdefense.evaluation.presets import PRESETS, build_suite
from deepdefense.evaluation.rho_protocol import RHO_ATTACK
from deepdefense.seam.frozen_dict import FrozenDict
from deepdefense.seam.settings import (
    check_settings,
    document_settings,
    norm_order,
    one_of,
    setting,
    whole_number,
)
from deepdefense.seam.validation import check_number, check_order

__all__ = ["DEFAULT_PLAN", "EvaluationPlan"]


@document_settings
@dataclass(frozen=True)
class EvaluationPlan:
    """The settings of one evaluation.

    A plan raises `InputError` if a setting is out of range.
    """

    preset: str = setting("quick", "which attacks run, with how many steps", one_of(*PRESETS))
    p: float = setting(2.0, "the order of the attacker's norm, 2 or inf", norm_order)
    eps: tuple[float, ...] = setting(
        (),
        "the radii of the fixed-budget attacks; if empty, the median distance that the "
        "minimum-norm attacks find is the radius",
    )
    seed: int = setting(0, "the seed of all random draws", whole_number(least=0))
    batch_size: int = setting(500, "the number of examples in a batch", whole_number(least=1))
    rho: FrozenDict[Any] = setting(
        FrozenDict(RHO_ATTACK),
        "the steps, overshoot and candidates of the DeepFool attack that measures rho",
    )

    def __post_init__(self) -> None:
        """Raise `InputError` if a setting is out of range."""
        check_settings(self)
        build_suite(self.preset, self.p, self.eps, 2)  # raises unless p is 2 or inf

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
        """Make a plan from the arguments of `evaluate`; `eps` may be one radius, several or None.

        Raises:
            InputError: an argument is out of range.
        """
        radii = [] if eps is None else np.atleast_1d(np.asarray(eps)).tolist()
        for radius in radii:
            check_number("eps", radius, least=0)
        order = check_order(p)
        return cls(preset, order, tuple(map(float, radii)), seed, batch_size, FrozenDict(rho))


# The default settings of `evaluate` and of the command `deepdefense evaluate`.
DEFAULT_PLAN = EvaluationPlan()
