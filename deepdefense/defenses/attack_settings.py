"""Help texts and checks of the settings that several defences share, such as an attack's radius."""

from __future__ import annotations

from typing import Any

from deepdefense.attacks.common.balls import check_ball_order
from deepdefense.geometry.bounds import freeze_bounds
from deepdefense.seam.settings import real_number, whole_number

__all__ = ["BALL_NORM", "BALL_RADIUS", "BOUNDS", "CLEAN_WEIGHT", "DESCENT_STEPS"]


def _check_ball_norm(name: str, value: Any) -> Any:
    """Return `value`, the order of a norm; raise `InputError` unless it is 2 or inf."""
    check_ball_order(value)
    return value


# Each constant is a pair (help text, check), for use as in `setting(0.1, *BALL_RADIUS)`.
CLEAN_WEIGHT = ("weight of the unperturbed examples, less than 1", real_number(0, below=1))

BALL_RADIUS = ("radius of the ball, in the units of x", real_number(0))

BALL_NORM = ("order of the norm, 2 or inf", _check_ball_norm)

DESCENT_STEPS = ("steps of the descent, each of length 2.5 eps / steps", whole_number(1))

BOUNDS = (
    "(low, high), the range of perturbed examples: numbers, or arrays of an example's shape",
    lambda name, value: freeze_bounds(value),
)
