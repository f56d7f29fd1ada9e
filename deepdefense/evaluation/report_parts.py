"""Computes the parts of an evaluation's report from the smallest perturbations of each example."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from deepdefense.evaluation.checks import Check, find_severe_failure
from deepdefense.evaluation.minima import Minima
from deepdefense.evaluation.provenance import NetworkInfo
from deepdefense.evaluation.report import AttackLine, Headline, ReferenceFigures, Weakness
from deepdefense.evaluation.rho_protocol import Measurement, Summary
from deepdefense.evaluation.statistics import (
    Interval,
    bootstrap,
    finite_or_none,
    percentile_99,
    quantile,
    robust_accuracy,
    row_medians,
    security_curve,
    summarize_distances,
    wilson_interval,
)
from deepdefense.evaluation.subject import HostArray
from deepdefense.seam.frozen_dict import FrozenDict

__all__ = [
    "make_headline",
    "make_reference_figures",
    "measure_intervals",
    "measure_weakness",
    "tabulate_attacks",
]


def make_headline(minima: Minima, eps: float, checks: Sequence[Check]) -> Headline:
    """Return the main figures: the median distance, and the accuracy under attack within `eps`.

    If a severe check fails, return the reason why these figures are withheld instead.
    """
    failing = find_severe_failure(checks)
    if failing is not None:
        reason = f"The check “{failing.name}” fails: {failing.evidence}."
        return Headline(reason, None, eps, None)
    distance = minima.distance
    return Headline(None, summarize_distances(distance).median, eps, robust_accuracy(distance, eps))


def make_reference_figures(
    network: NetworkInfo, summary: Summary, minima: Minima, *, beside: Minima
) -> ReferenceFigures:
    """Return the figures of the undefended reference network for the report.

    Args:
        network: the description of the reference network.
        summary: its accuracy and rho.
        minima: its smallest perturbations.
        beside: the smallest perturbations of the evaluated network, which determine the largest eps
            of both security curves.
    """
    return ReferenceFigures(
        network=network,
        accuracy=summary.accuracy,
        rho_2=summary.rho_2,
        rho_2_median=summary.rho_2_median,
        success=summary.success,
        iterations_mean=summary.iterations_mean,
        distance=summarize_distances(minima.distance),
        curve=security_curve(minima.distance, top=percentile_99(beside.distance)),
    )


def measure_intervals(
    by_rho: Measurement, minima: Minima, eps: float, seed: int
) -> FrozenDict[Interval]:
    """Return a mapping from the name of each main figure to its 95 % confidence interval.

    Shares of examples have Wilson intervals. Medians and means have bootstrap intervals, drawn with
    `seed`. `by_rho` is the measurement of accuracy and rho in the 2-norm.
    """
    n, distance = len(minima.distance), minima.distance
    return FrozenDict(
        accuracy=wilson_interval(float(by_rho.correct.mean()), n),
        rho_2=bootstrap(lambda v: v[..., 0].mean(1), by_rho.rho, seed=seed),
        distance_median=bootstrap(lambda v: row_medians(v[..., 0]), distance, seed=seed),
        robust_accuracy=wilson_interval(robust_accuracy(distance, eps), n),
    )


def measure_weakness(minima: Minima, y: HostArray, classes: int) -> Weakness:
    """Make the confusion table after the smallest perturbations, and each class's median distance.

    The table counts pairs of an example's label y [n] and the class predicted for the perturbed
    example. Both leave out examples that are misclassified without a perturbation.
    """
    fooled = np.isfinite(minima.distance) & (minima.distance > 0)
    counts = np.zeros((classes, classes), dtype=np.int64)
    np.add.at(counts, (y[fooled], minima.predicted[fooled]), 1)
    medians = []
    for label in range(classes):
        distance = minima.distance[(y == label) & (minima.distance > 0)]
        medians.append(finite_or_none(quantile(distance, 0.5)) if len(distance) else None)
    return Weakness(tuple(tuple(map(int, row)) for row in counts), tuple(medians))


def tabulate_attacks(minima: Minima) -> tuple[AttackLine, ...]:
    """Return the results of each attack, in the order in which the attacks ran."""
    fooled = int((minima.by >= 0).sum()) or 1
    lines = []
    for i, outcome in enumerate(minima.outcomes):
        distance = outcome.distance[outcome.ran]
        hit = np.isfinite(distance)
        lines.append(
            AttackLine(
                name=outcome.attack.name,
                kind=outcome.attack.kind,
                settings=outcome.attack.settings,
                ran=len(distance),
                success=float(hit.mean()) if len(distance) else None,
                median=quantile(distance[hit], 0.5) if hit.any() else None,
                best=float((minima.by == i).sum() / fooled),
                rejected=outcome.rejected,
                seconds=round(outcome.seconds, 3),
            )
        )
    return tuple(lines)
