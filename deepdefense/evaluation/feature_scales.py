"""Find features whose scales differ so much that distances between examples mean little."""

from __future__ import annotations

import numpy as np

from deepdefense.evaluation.dataset import Dataset
from deepdefense.evaluation.subject import pick_evenly

__all__ = ["describe_unequal_scales"]

# The ratio of the largest to the smallest standard deviation from which on scales are unequal.
MAX_SCALE_RATIO = 100.0
# The standard deviations are those of at most this many training examples.
FEATURE_EXAMPLES = 2000
# A feature that has one value in at least this share of the examples has no scale. Examples are
# features that are constant, pixels at the border of a picture, and indicators of a rare category.
CONSTANT_SHARE = 0.95


def describe_unequal_scales(data: Dataset) -> str | None:
    """Return a warning with a remedy if the features of the training set have unequal scales.

    The scale of a feature is its standard deviation. Scales are unequal if the largest is more than
    `MAX_SCALE_RATIO` times the smallest. Return None if they are not, or if the data are images.
    """
    if data.scale:
        return None
    rows = pick_evenly(np.arange(len(data.x_train)), FEATURE_EXAMPLES)
    features = data.x_train[rows].reshape(len(rows), -1).astype(np.float64)
    tail = (1 - CONSTANT_SHARE) / 2
    low, high = np.quantile(features, [tail, 1 - tail], axis=0, method="nearest")
    varying = np.flatnonzero(low < high)
    deviations = features.std(axis=0)[varying]
    if not len(varying) or deviations.max() <= MAX_SCALE_RATIO * deviations.min():
        return None
    smallest, largest = deviations.argmin(), deviations.argmax()
    ends = " to ".join(
        f"{deviations[i]:.3g} ({_name_feature(data, int(varying[i]))})" for i in (smallest, largest)
    )
    return (
        f"the features differ in scale: their standard deviations go from {ends}, "
        f"{deviations[largest] / deviations[smallest]:,.0f} times as much. A distance that mixes "
        "such units says little. Use the same units for all: standardise the features, which the "
        "commands do with --standardize (docs/data.md)"
    )


def _name_feature(data: Dataset, position: int) -> str:
    """Return the name of a feature, or its place in an array of examples, such as "x[:, 3]"."""
    if position < len(data.feature_names):
        return data.feature_names[position]
    place = np.unravel_index(position, data.x_train.shape[1:])
    return f"x[:, {', '.join(map(str, place))}]"
