"""Adversarial training: train on examples perturbed by FGSM, DeepFool or PGD."""

from __future__ import annotations

import math
from dataclasses import dataclass

from deepdefense.attacks import deepfool, fgsm, pgd
from deepdefense.defenses.attack_settings import (
    BALL_NORM,
    BALL_RADIUS,
    BOUNDS,
    CLEAN_WEIGHT,
    DESCENT_STEPS,
)
from deepdefense.defenses.mixed_cross_entropy import MixedCrossEntropy
from deepdefense.geometry.bounds import Bounds
from deepdefense.seam.contract import Array, Model
from deepdefense.seam.settings import (
    document_settings,
    norm_order,
    real_number,
    setting,
    whole_number,
)

__all__ = ["AdversarialTraining", "DeepFoolTraining", "PGDTraining"]


@document_settings
@dataclass(frozen=True)
class AdversarialTraining(MixedCrossEntropy):
    """Adversarial training on examples perturbed by FGSM.

        loss = alpha CE(x) + (1 - alpha) CE(x + eps sign(grad_x CE))

    CE is the mean cross-entropy of a batch.

    Source: Goodfellow, Shlens and Szegedy (2015), "Explaining and harnessing adversarial examples",
    section 6.
    """

    eps: float = setting(
        0.1, "length of the step in the maximum norm, in the units of x", real_number(0)
    )

    def points(self, model: Model, x: Array, y: Array) -> tuple[Array, ...]:
        """Return the examples after one FGSM step; misclassified examples stay unperturbed."""
        return (fgsm(model, x, y, eps=self.eps).x,)


@document_settings
@dataclass(frozen=True)
class DeepFoolTraining(MixedCrossEntropy):
    """Adversarial training on examples perturbed by DeepFool.

        loss = alpha CE(x) + (1 - alpha) CE(x + D)

    CE is the mean cross-entropy of a batch. D is DeepFool's perturbation, which moves x out of its
    predicted class.

    Source: Moosavi-Dezfooli, Fawzi and Frossard (2016), "DeepFool", section 4.2.
    """

    alpha: float = setting(0.0, *CLEAN_WEIGHT)
    p: float = setting(2.0, "order of DeepFool's norm, from 1 to inf", norm_order)
    steps: int = setting(50, "largest number of DeepFool iterations", whole_number(1))
    overshoot: float = setting(0.02, "DeepFool's overshoot", real_number(0))
    candidates: int = setting(
        10, "number of classes considered, including the base class", whole_number(2)
    )

    def points(self, model: Model, x: Array, y: Array) -> tuple[Array, ...]:
        """Return the examples perturbed by DeepFool.

        The labels `y` are not used, because DeepFool moves each example out of its predicted class.
        """
        perturbation = deepfool(
            model,
            x,
            p=self.p,
            steps=self.steps,
            overshoot=self.overshoot,
            candidates=self.candidates,
        )
        return (perturbation.x,)


@document_settings
@dataclass(frozen=True)
class PGDTraining(MixedCrossEntropy):
    """Adversarial training on examples perturbed by projected gradient descent (PGD).

        loss = alpha CE(x) + (1 - alpha) CE(x')

    CE is the mean cross-entropy of a batch. PGD finds x' within the distance eps of x.

    Source: Madry, Makelov, Schmidt, Tsipras and Vladu (2018), "Towards deep learning models
    resistant to adversarial attacks".
    """

    alpha: float = setting(0.0, *CLEAN_WEIGHT)
    eps: float = setting(0.1, *BALL_RADIUS)
    steps: int = setting(10, *DESCENT_STEPS)
    p: float = setting(math.inf, *BALL_NORM)
    bounds: Bounds | None = setting(None, *BOUNDS, unset="no bounds")

    def points(self, model: Model, x: Array, y: Array) -> tuple[Array, ...]:
        """Return the last point of PGD for each example, which may still be correctly classified.

        Examples that the network misclassifies stay unperturbed.
        """
        perturbation = pgd(
            model, x, y, eps=self.eps, steps=self.steps, p=self.p, bounds=self.bounds
        )
        return (perturbation.x,)
