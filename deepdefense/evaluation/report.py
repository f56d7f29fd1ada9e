"""What an evaluation came to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from deepdefense.evaluation.checks import Check, find_severe_failure
from deepdefense.evaluation.minima import Minima
from deepdefense.evaluation.provenance import NetworkInfo, to_json
from deepdefense.evaluation.rho import Measurement, Summary
from deepdefense.evaluation.statistics import (
    Comparison,
    Curve,
    Distance,
    Interval,
    bootstrap,
    finite_or_none,
    quantile,
    robust_accuracy,
    row_medians,
    summarize_distances,
    wilson_interval,
)
from deepdefense.evaluation.subject import HostArray

__all__ = [
    "AttackLine",
    "Headline",
    "ReferenceFigures",
    "Report",
    "Threat",
    "Weakness",
    "make_headline",
    "measure_intervals",
    "measure_weakness",
    "tabulate_attacks",
]

EVALUATION_SCHEMA = "deepdefense.evaluate/1"


@dataclass(frozen=True)
class Threat:
    """What the attacker may do."""

    p: float
    bounds: str
    goal: str = "any other class"
    knowledge: str = "white box: the attacker knows the network and its gradients"


@dataclass(frozen=True)
class Headline:
    """The figures to go by, or why they are `withheld`."""

    withheld: str | None
    distance_median: float | None
    eps: float | None
    robust_accuracy: float | None


@dataclass(frozen=True)
class AttackLine:
    """One attack: what it fooled of the examples it was run on, and how near.

    `best` is the share of the examples fooled whose smallest perturbation is this attack's;
    `rejected` counts claims that did not hold.
    """

    name: str
    kind: str
    settings: tuple[tuple[str, Any], ...]
    ran: int
    success: float | None
    median: float | None
    best: float
    rejected: int
    seconds: float = field(compare=False)  # reports of the same figures are equal


@dataclass(frozen=True)
class Weakness:
    """Which class is nearest to which: `counts` [k][k] of right examples, true class by row."""

    counts: tuple[tuple[int, ...], ...]
    median: tuple[float | None, ...]


@dataclass(frozen=True)
class ReferenceFigures:
    """The undefended network, on the same examples."""

    network: NetworkInfo
    accuracy: float
    rho_2: float
    rho_2_median: float
    success: float
    iterations_mean: float
    distance: Distance
    curve: Curve


@dataclass(frozen=True, kw_only=True)
class Report(Summary):
    """Accuracy, and robustness as the smallest perturbation found by any of several attacks.

    `accuracy`, `rho_2` and what goes with them are the paper's figures (`Summary`). `headline` has
    the figures to go by; it withholds them while a severe one of the `checks` fails. The arrays
    behind it, one entry per example, are in `minima` (and `reference_minima`).
    """

    backend: str
    network: NetworkInfo
    data: tuple[tuple[str, Any], ...]
    threat: Threat
    preset: str
    seed: int
    headline: Headline
    distance: Distance
    curve: Curve
    intervals: tuple[tuple[str, Interval], ...]
    attacks: tuple[AttackLine, ...]
    checks: tuple[Check, ...]
    weakness: Weakness
    reference: ReferenceFigures | None
    comparison: Comparison | None
    manifest: tuple[tuple[str, Any], ...] = field(repr=False, compare=False)
    minima: Minima = field(repr=False, compare=False)
    reference_minima: Minima | None = field(repr=False, compare=False)
    x: HostArray = field(repr=False, compare=False)
    y: npt.NDArray[np.int64] = field(repr=False, compare=False)

    def __str__(self) -> str:
        """The figures to go by, or why there are none, and every check that does not pass."""
        found, norm = self.headline, f"l{self.threat.p:g}"
        lines = [
            f"accuracy {100 * self.accuracy:.2f} % of {self.n:,} examples; "
            f"rho_2 {self.rho_2:.4g}, by DeepFool alone"
        ]
        if found.withheld is not None:
            lines.append(f"no figure of robustness: {found.withheld}")
        else:
            lines.append(
                f"median {norm} distance, best attack: {_format_distance(found.distance_median)}"
            )
            if self.comparison is not None and self.comparison.median_ratio is not None:
                lines[-1] += f", {self.comparison.median_ratio:.2f} times the reference's"
            if found.eps is not None and found.robust_accuracy is not None:
                lines.append(
                    f"accuracy under attack, {norm} within {found.eps:.4g}: "
                    f"{100 * found.robust_accuracy:.2f} %"
                )
        passing = sum(check.status == "pass" for check in self.checks)
        lines.append(f"{passing} of {len(self.checks)} checks pass")
        return "\n".join(lines + [str(c) for c in self.checks if c.status != "pass"])

    @property
    def distances(self) -> npt.NDArray[np.float64]:
        """The smallest perturbation found [n]: 0 where wrong of itself, inf where there is none."""
        return self.minima.distance

    @property
    def summary(self) -> Summary:
        """The paper's figures alone."""
        return Summary(**{f.name: getattr(self, f.name) for f in fields(Summary)})

    @property
    def trusted(self) -> bool:
        """No severe check fails."""
        return find_severe_failure(self.checks) is None

    def as_dict(self) -> dict[str, Any]:
        """The content of report.json."""
        content: dict[str, Any] = {
            "schema": EVALUATION_SCHEMA,
            "backend": self.backend,
            "network": asdict(self.network),
            "data": dict(self.data),
            "threat": asdict(self.threat),
            "preset": self.preset,
            "seed": self.seed,
            **super().as_dict(),
            "headline": asdict(self.headline),
            "distance": _distance(self.distance),
            "curve": asdict(self.curve),
            "intervals": dict(self.intervals),
            "attacks": [asdict(line) | {"settings": dict(line.settings)} for line in self.attacks],
            "checks": [asdict(check) for check in self.checks],
            "weakness": asdict(self.weakness),
            "reference": None,
            "comparison": None if self.comparison is None else asdict(self.comparison),
            "manifest": dict(self.manifest),
        }
        if self.reference is not None:
            side = asdict(self.reference)
            content["reference"] = side | {"distance": _distance(self.reference.distance)}
        return {key: to_json(value) for key, value in content.items()}


def _distance(distance: Distance) -> dict[str, Any]:
    return asdict(distance) | {"quantiles": dict(distance.quantiles)}


def _format_distance(distance: float | None) -> str:
    return "beyond what any attack found" if distance is None else f"{distance:.4g}"


def make_headline(minima: Minima, eps: float, checks: Sequence[Check]) -> Headline:
    """The median distance and accuracy under attack, unless a severe check fails."""
    failing = find_severe_failure(checks)
    if failing is not None:
        reason = f"The check “{failing.name}” fails: {failing.evidence}."
        return Headline(reason, None, eps, None)
    distance = minima.distance
    return Headline(None, summarize_distances(distance).median, eps, robust_accuracy(distance, eps))


def measure_intervals(
    by_rho: Measurement, minima: Minima, eps: float, seed: int
) -> dict[str, Interval]:
    """95 % intervals of the main figures: Wilson's of shares, else of the bootstrap."""
    n = len(minima.distance)
    return {
        "accuracy": wilson_interval(float(by_rho.correct.mean()), n),
        "rho_2": bootstrap(lambda v: v[..., 0].mean(1), by_rho.rho, seed=seed),
        "distance_median": bootstrap(lambda v: row_medians(v[..., 0]), minima.distance, seed=seed),
        "robust_accuracy": wilson_interval(robust_accuracy(minima.distance, eps), n),
    }


def measure_weakness(minima: Minima, y: HostArray, classes: int) -> Weakness:
    """Per class: where the smallest perturbations of its examples lead, and their median."""
    fooled = np.isfinite(minima.distance) & (minima.distance > 0)
    counts = np.zeros((classes, classes), dtype=np.int64)
    np.add.at(counts, (y[fooled], minima.predicted[fooled]), 1)
    medians = []
    for label in range(classes):
        own = minima.distance[(y == label) & (minima.distance > 0)]
        medians.append(finite_or_none(quantile(own, 0.5)) if len(own) else None)
    return Weakness(tuple(tuple(map(int, row)) for row in counts), tuple(medians))


def tabulate_attacks(minima: Minima) -> tuple[AttackLine, ...]:
    """The table of attacks."""
    fooled = int((minima.by >= 0).sum()) or 1
    lines = []
    for i, outcome in enumerate(minima.outcomes):
        found = outcome.distance[outcome.ran]
        hit = np.isfinite(found)
        lines.append(
            AttackLine(
                name=outcome.attack.name,
                kind=outcome.attack.kind,
                settings=outcome.attack.settings,
                ran=len(found),
                success=float(hit.mean()) if len(found) else None,
                median=quantile(found[hit], 0.5) if hit.any() else None,
                best=float((minima.by == i).sum() / fooled),
                rejected=outcome.rejected,
                seconds=round(outcome.seconds, 3),
            )
        )
    return tuple(lines)
