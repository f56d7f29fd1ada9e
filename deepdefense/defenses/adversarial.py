"""Adversarial training: on steps of the fast gradient sign, on DeepFool's and on PGD's examples."""

from __future__ import annotations

import math
from dataclasses import dataclass

from deepdefense.attacks import deepfool, fgsm, pgd
from deepdefense.attacks.common.balls import check_ball_order
from deepdefense.defenses.mixed_cross_entropy import MixedCrossEntropy
from deepdefense.geometry.bounds import Bounds, freeze_bounds
from deepdefense.seam.contract import Array, Model
from deepdefense.seam.validation import check_count, check_number, check_order

__all__ = ["AdversarialTraining", "DeepFoolTraining", "PGDTraining"]


@dataclass(frozen=True)
class AdversarialTraining(MixedCrossEntropy):
    """alpha CE(x) + (1 - alpha) CE(x + eps sign(grad_x CE)).

    Args:
        alpha: the weight of the examples themselves.
        eps: the length of the step in the maximum norm, in the units of x.

    Source: Goodfellow, Shlens and Szegedy (2015), "Explaining and harnessing adversarial examples",
    section 6.
    """

    eps: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number("eps", self.eps, least=0)

    def points(self, model: Model, x: Array, y: Array) -> tuple[Array, ...]:
        """The examples, a step away from their labels; those missed already stay as they are."""
        return (fgsm(model, x, y, eps=self.eps).x,)


@dataclass(frozen=True)
class DeepFoolTraining(MixedCrossEntropy):
    """alpha CE(x) + (1 - alpha) CE(x + D), D by DeepFool from the predicted class.

    The paper's comparison trains on perturbed examples alone (alpha = 0), for five epochs more at
    half of the learning rate.

    Args:
        alpha: the weight of the examples themselves.
        p: order of DeepFool's norm.
        steps, overshoot, candidates: of DeepFool.

    Source: Moosavi-Dezfooli, Fawzi and Frossard (2016), "DeepFool", section 4.2.
    """

    alpha: float = 0.0
    p: float = 2.0
    steps: int = 50
    overshoot: float = 0.02
    candidates: int = 10

    def __post_init__(self) -> None:
        super().__post_init__()
        check_order(self.p)
        check_count("steps", self.steps, least=1)
        check_number("overshoot", self.overshoot, least=0)
        check_count("candidates", self.candidates, least=2)

    def points(self, model: Model, x: Array, y: Array) -> tuple[Array, ...]:
        """The examples across their nearest boundary."""
        found = deepfool(
            model,
            x,
            p=self.p,
            steps=self.steps,
            overshoot=self.overshoot,
            candidates=self.candidates,
        )
        return (found.x,)


@dataclass(frozen=True)
class PGDTraining(MixedCrossEntropy):
    """CE(x'), x' by projected gradient descent within eps of x (alpha = 0).

    Args:
        alpha: the weight of the examples themselves.
        eps: radius of the ball, in the units of x.
        steps: of the descent, each of length 2.5 eps / steps.
        p: order of the norm, 2 or inf.
        bounds: (low, high), the range of perturbed examples: numbers, or arrays of their shape.

    Source: Madry, Makelov, Schmidt, Tsipras and Vladu (2018), "Towards deep learning models
    resistant to adversarial attacks".
    """

    alpha: float = 0.0
    eps: float = 0.1
    steps: int = 10
    p: float = math.inf
    bounds: Bounds | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number("eps", self.eps, least=0)
        check_count("steps", self.steps, least=1)
        check_ball_order(self.p)
        freeze_bounds(self)

    def points(self, model: Model, x: Array, y: Array) -> tuple[Array, ...]:
        """Points of the ball that fool, or where the descent came to."""
        found = pgd(model, x, y, eps=self.eps, steps=self.steps, p=self.p, bounds=self.bounds)
        return (found.x,)
