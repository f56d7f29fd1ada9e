"""Explain why hardening brings no gain, in the words of a remedy."""

from __future__ import annotations

from deepdefense.evaluation.dataset import Dataset
from deepdefense.evaluation.feature_scales import describe_unequal_scales
from deepdefense.training.rehearsal import Rehearsal
from deepdefense.training.stages import Stage, describe_strength

__all__ = ["explain_no_gain", "warn_of_unlearnt_data"]

# With fewer examples set aside, the accuracy on them cannot tell a gain from a loss.
FEW_EXAMPLES = 50

# Plain training reaches an accuracy on fresh examples that is higher by this than that of the
# given network on its own training examples, if the network has not learnt its data.
UNLEARNT_GAP = 0.02


def explain_no_gain(rehearsal: Rehearsal, data: Dataset) -> str | None:
    """Return why no stage of the rehearsal was accepted, or None if one was."""
    if rehearsal.accepted:
        return None
    reasons = "; ".join(_explain(stage, rehearsal) for stage in rehearsal.stages)
    found = f"on {rehearsal.examples:,} examples set aside, {reasons}"
    if describe_unequal_scales(data):
        return f"{found}. The features differ in scale: standardise them first"
    if warn_of_unlearnt_data(rehearsal):
        return f"{found}. The network has not learnt its training data: train it longer first"
    if rehearsal.examples < FEW_EXAMPLES:
        return (
            f"{found}. These are too few examples to choose by: collect more, or give `recipe` and "
            "`defense`"
        )
    if any(stage.rejection == "accuracy" for stage in rehearsal.stages):
        return (
            f"{found}. Robustness costs accuracy here: if you can spare some, give "
            "`Guard(max_accuracy_drop=...)`, or --max-accuracy-drop"
        )
    return f"{found}. There is no headroom: stronger penalties move the boundary no further"


def warn_of_unlearnt_data(rehearsal: Rehearsal) -> str | None:
    """Return a warning if plain training on the data beats the given network; else None."""
    if not rehearsal.from_shuffled_weights:
        return None
    if rehearsal.plain_accuracy < rehearsal.given_accuracy + UNLEARNT_GAP:
        return None
    return (
        f"the network has not learnt its training data: it is right on "
        f"{rehearsal.given_accuracy:.1%} of them, where plain training from shuffled weights "
        f"reaches {rehearsal.plain_accuracy:.1%} on examples that it never saw. Train it longer "
        "before hardening"
    )


def _explain(stage: Stage, rehearsal: Rehearsal) -> str:
    """Return why a stage was rejected, with figures."""
    if stage.rejection == "accuracy":
        change = f"accuracy fell from {rehearsal.plain_accuracy:.1%} to {stage.accuracy:.1%}"
    else:
        change = f"the median distance went from {rehearsal.distance:.3g} to {stage.distance:.3g}"
    return f"at {describe_strength(stage.strength)}, {change}"
