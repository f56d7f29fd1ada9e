"""Make the tables of a hardening run's page, which compare figures before and after hardening."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from deepdefense.app.pages.drawing import NumpyArray
from deepdefense.app.pages.wording import (
    compute_points_change,
    compute_ratio,
    format_count,
    format_factor,
    format_number,
    format_percent,
    format_points_change,
    name_norm,
)
from deepdefense.training.report import HardeningReport
from deepdefense.training.stages import describe_strength

__all__ = [
    "ComparisonRow",
    "RhoMeasure",
    "StageRow",
    "compute_percentile",
    "list_rho_measures",
    "tabulate_comparison",
    "tabulate_rho_percentiles",
    "tabulate_stages",
]

RHO_PERCENTILES = (5, 10, 25, 50, 75, 90)


class ComparisonRow(NamedTuple):
    """The texts of one row of a table that compares the network before and after hardening."""

    label: str
    before: str
    after: str
    change: str


class StageRow(NamedTuple):
    """The texts of one row of the table of stages."""

    strength: str
    distance: str
    accuracy: str
    result: str


class RhoMeasure(NamedTuple):
    """The mean and the median of rho in one norm, before and after hardening."""

    name: str  # such as rho_2
    before: float | None  # mean rho before hardening
    after: float | None  # mean rho after hardening
    median_before: float | None
    median_after: float | None


def list_rho_measures(report: HardeningReport) -> list[RhoMeasure]:
    """Return rho in the norm that the penalty was trained with.

    If this norm is not the 2-norm, the list holds rho_2 as its second measure.
    """
    before, after = report.before, report.after
    rho_2 = RhoMeasure("rho_2", before.rho_2, after.rho_2, before.rho_2_median, after.rho_2_median)
    if after.rho_p is None:
        return [rho_2]
    rho_p = RhoMeasure(
        f"rho_{after.p:g}", before.rho_p, after.rho_p, before.rho_p_median, after.rho_p_median
    )
    return [rho_p, rho_2]


def tabulate_comparison(report: HardeningReport) -> list[ComparisonRow]:
    """Return the rows on accuracy, distance, rho, and DeepFool's success rate and iterations."""
    before, after, verdict = report.before, report.after, report.verdict
    rows = [
        _make_share_row("Accuracy", before.accuracy, after.accuracy, before.n),
        _make_ratio_row(
            f"{name_norm(verdict.p)} distance by {' and '.join(verdict.attacks)}, median",
            verdict.median_before,
            verdict.median_after,
        ),
    ]
    for measure in reversed(list_rho_measures(report)):
        rows.append(_make_ratio_row(f"{measure.name}, mean", measure.before, measure.after))
        rows.append(
            _make_ratio_row(f"{measure.name}, median", measure.median_before, measure.median_after)
        )
    return [
        *rows,
        _make_share_row("Examples DeepFool fools", before.success, after.success, before.n),
        _make_ratio_row("DeepFool iterations, mean", before.iterations_mean, after.iterations_mean),
        ComparisonRow("Held-out examples", format_count(before.n), format_count(after.n), ""),
        ComparisonRow(
            "of which with a distance", format_count(verdict.n), format_count(verdict.n), ""
        ),
    ]


def tabulate_stages(report: HardeningReport) -> list[StageRow]:
    """Return a row for the network before hardening, and one for each stage that was tried."""
    rehearsal = report.rehearsal
    if rehearsal is None:
        return []
    n = rehearsal.examples
    first = StageRow(
        "before hardening",
        format_number(rehearsal.distance),
        format_percent(rehearsal.plain_accuracy, n),
        "",
    )
    results = {
        "": "accepted",
        "accuracy": "rejected: accuracy fell too far",
        "distance": "rejected: the distance hardly grew",
    }
    return [
        first,
        *(
            StageRow(
                describe_strength(stage.strength),
                format_number(stage.distance),
                format_percent(stage.accuracy, n),
                results[stage.rejection],
            )
            for stage in rehearsal.stages
        ),
    ]


def tabulate_rho_percentiles(before: NumpyArray, after: NumpyArray) -> list[ComparisonRow]:
    """Return a row for each percentile of rho_2.

    Each row states a share of the examples, such as 95 %, and the rho_2 that this share of them
    reach or exceed.
    """
    return [
        _make_ratio_row(
            f"{100 - level} % of examples",
            compute_percentile(before, level),
            compute_percentile(after, level),
        )
        for level in RHO_PERCENTILES
    ]


def compute_percentile(values: NumpyArray, level: int) -> float:
    """Return the percentile `level` (0..100) of values [n]; NaN if n is 0."""
    return float(np.percentile(values, level)) if len(values) else math.nan


def _make_ratio_row(label: str, before: float | None, after: float | None) -> ComparisonRow:
    """Make a row of two numbers; the change is written as the factor `after` / `before`."""
    change = format_factor(compute_ratio(before, after))
    return ComparisonRow(label, format_number(before), format_number(after), change)


def _make_share_row(label: str, before: float, after: float, n: int) -> ComparisonRow:
    """Make a row of two shares of n examples; the change is written in percentage points."""
    change = format_points_change(compute_points_change(before, after, n), n)
    return ComparisonRow(label, format_percent(before, n), format_percent(after, n), change)
