"""Checks of a model's outputs, of the examples and bounds, and of the model's mode."""

from __future__ import annotations

import numpy as np

from deepdefense.evaluation.checks.check import Check, as_percent, grade, make_check
from deepdefense.evaluation.subject import Subject
from deepdefense.seam.validation import has_constant_sum

__all__ = [
    "check_accuracy",
    "check_input_range",
    "check_logit_values",
    "check_saturation",
    "check_training_mode",
]

WITHOUT_SOFTMAX = (
    "Pass the model without its softmax or sigmoid: attacks and distances are distorted where "
    "probabilities round to 0 and 1."
)
# `check_accuracy` warns if accuracy exceeds chance, 1 / k for k classes, by no more than this
# fraction of 1 - 1 / k.
BARELY_ABOVE_CHANCE = 0.1
# A check fails if more than this share of the examples has outputs that are not finite, or so
# large that the softmax is saturated.
MOST_BAD_OUTPUTS = 0.05


def check_logit_values(subject: Subject) -> Check:
    """Check that the outputs are finite logits and not probabilities.

    Probabilities near 0 and 1 are almost constant, so their gradients are almost 0 and attacks
    fail.
    """
    values = subject.logits[np.isfinite(subject.logits).all(1)].astype(np.float64)
    nonfinite = 1 - len(values) / len(subject.logits)
    if has_constant_sum(values):
        return make_check(
            "logits",
            "fail",
            f"no output is negative and all sum to {values.sum(1).mean():.4g}: these are "
            "probabilities, not logits",
            WITHOUT_SOFTMAX,
        )
    if len(values) > 0 and ((values >= 0) & (values <= 1)).all():
        return make_check(
            "logits", "warn", "every output is in 0..1, as probabilities", WITHOUT_SOFTMAX
        )
    if nonfinite > 0:
        return make_check(
            "logits",
            grade(nonfinite, 0, MOST_BAD_OUTPUTS),
            f"{as_percent(nonfinite)} of the outputs are NaN or infinite",
            "Look for overflow in the model, or examples that are not finite.",
        )
    low, high = values.min(), values.max()
    return make_check("logits", "pass", f"outputs run from {low:.3g} to {high:.3g}")


def check_input_range(subject: Subject) -> Check:
    """Check that the bounds have the units of the examples, and that pixels come with bounds.

    The units seem to differ if the examples cover less than half of the range of the bounds.
    Examples without bounds seem to be pixels if their smallest value is 0, and their largest value
    is either in 0.9..1 or in 229.5..255.
    """
    low, high = float(np.min(subject.x)), float(np.max(subject.x))
    seen = f"examples run from {low:.3g} to {high:.3g}"
    if subject.bounds is not None:
        widest = float(np.max(np.asarray(subject.bounds[1]) - np.asarray(subject.bounds[0])))
        if high - low < 0.5 * widest:
            return make_check(
                "input range",
                "warn",
                f"{seen}, but the bounds are {widest:.3g} apart",
                "Give the bounds in the units of x as the model takes it.",
                severe=False,
            )
        return make_check("input range", "pass", f"{seen}, inside of the bounds", severe=False)
    for top in (1.0, 255.0):
        if low == 0 and 0.9 * top <= high <= top:
            return make_check(
                "input range",
                "warn",
                f"{seen}, as pixels do, but no bounds are given: perturbed examples may leave that "
                "range",
                f"Pass bounds=(0, {top:g}), unless perturbations without a range are meant.",
                severe=False,
            )
    return make_check("input range", "pass", f"{seen}; no bounds are given", severe=False)


def check_accuracy(subject: Subject) -> Check:
    """Check that accuracy is clearly above chance, 1 / k for a random guess among k classes.

    Low accuracy usually means that the examples are not scaled to the units used in training.
    """
    accuracy, chance = float(subject.correct.mean()), 1 / subject.logits.shape[1]
    poor = accuracy <= chance + BARELY_ABOVE_CHANCE * (1 - chance)
    return make_check(
        "accuracy",
        "warn" if poor else "pass",
        f"accuracy is {as_percent(accuracy)}, chance {as_percent(chance)}",
        "Check that x is normalised as in training, and that labels count the same classes.",
        severe=False,
    )


def check_training_mode(subject: Subject) -> Check:
    """Check that the caller passed the model in inference mode.

    The evaluation runs it in inference mode, so its figures do not apply to training mode.
    """
    return make_check(
        "training mode",
        "warn" if subject.in_training_mode else "pass",
        "the model came in training mode; it was switched to inference for these figures"
        if subject.in_training_mode
        else "the model is in inference mode, or has no modes",
        "Use the model in inference mode too: model.eval().",
        severe=False,
    )


def check_saturation(subject: Subject) -> Check:
    """Check that rounding of the softmax does not turn the cross-entropy's gradient into 0.

    If the softmax rounds to 1 for the label and to 0 for all other classes, the gradient is exactly
    0. The check uses only correctly classified examples, and the dtype of the logits.
    """
    z = subject.logits[subject.correct]
    if not len(z):
        return make_check("saturation", "pass", "no example is right", severe=False)
    powers = np.exp(z - z.max(1, keepdims=True))
    others = np.sort(powers, 1)[:, :-1].sum(1)
    share = float((others == 0).mean())
    rounded = float((others < np.finfo(z.dtype).eps).mean())
    return make_check(
        "saturation",
        grade(share, 0.01, MOST_BAD_OUTPUTS),
        f"on {as_percent(share)} of the right examples the cross-entropy's gradient is exactly 0, "
        f"on {as_percent(rounded)} the probability of the label rounds to 1",
        "Attacks by the plain cross-entropy (FGSM, PGD elsewhere) stand still there and make the "
        "network look robust. Those of this evaluation do not depend on it; others do.",
        severe=False,
    )
