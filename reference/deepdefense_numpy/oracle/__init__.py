"""The oracle: a textbook implementation of DeepFool and Deep Defense for one example at a time.

Tests compare the batched implementation in `deepdefense` with it. The two share no code.
"""

from deepdefense_numpy.oracle.chord import Landing, approach_boundary, chord_penalty
from deepdefense_numpy.oracle.penalty import (
    Options,
    implicit_weight_gradient,
    objective,
    penalty,
    rho,
    weight_gradient,
)
from deepdefense_numpy.oracle.search import SearchResult, deepfool, reach_label

__all__ = [
    "Landing",
    "Options",
    "SearchResult",
    "approach_boundary",
    "chord_penalty",
    "deepfool",
    "implicit_weight_gradient",
    "objective",
    "penalty",
    "reach_label",
    "rho",
    "weight_gradient",
]
