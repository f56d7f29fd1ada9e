"""The dataclasses that make up the report that `evaluate` returns and report.json stores."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from deepdefense.evaluation.checks import Check, find_severe_failure
from deepdefense.evaluation.minima import Minima
from deepdefense.evaluation.provenance import NetworkInfo, to_json
from deepdefense.evaluation.rho_protocol import Summary
from deepdefense.evaluation.statistics import Comparison, Curve, Distance, Interval
from deepdefense.evaluation.subject import HostArray
from deepdefense.seam.frozen_dict import FrozenDict

__all__ = [
    "AttackLine",
    "Headline",
    "ReferenceFigures",
    "Report",
    "Threat",
    "Weakness",
]

EVALUATION_SCHEMA = "deepdefense.evaluate/1"


@dataclass(frozen=True)
class Threat:
    """The threat model of a report: the attacker's limits, goal and knowledge.

    `p` is the order of the norm that measures perturbations. `bounds` describes the range of the
    perturbed examples.
    """

    p: float
    bounds: str
    goal: str = "any other class"
    knowledge: str = "white box: the attacker knows the network and its gradients"


@dataclass(frozen=True)
class Headline:
    """The main robustness figures of a report, or the reason why they are `withheld`.

    Attributes:
        withheld: the reason, or None if the figures are not withheld.
        distance_median: the median distance, or None if it is infinite or withheld.
        eps: the first radius of the fixed-budget attacks.
        robust_accuracy: the accuracy under attack within `eps`, or None if it is withheld.
    """

    withheld: str | None
    distance_median: float | None
    eps: float | None
    robust_accuracy: float | None


@dataclass(frozen=True)
class AttackLine:
    """The results of one attack, as a line of the report's table of attacks.

    Attributes:
        name: the name of the attack.
        kind: "minimum-norm" or "within eps".
        settings: the settings of the attack.
        ran: the number of examples that were attacked.
        success: the share of the attacked examples on which the attack succeeded.
        median: the median size of the perturbations of the successes.
        best: of the examples on which any attack succeeded, the share on which this attack found
            the smallest perturbation.
        rejected: the number of reported perturbed examples that `confirm_points` rejected.
        seconds: the duration of the attack.
    """

    name: str
    kind: str
    settings: FrozenDict[Any]
    ran: int
    success: float | None
    median: float | None
    best: float
    rejected: int
    # Excluded from comparison, so that reports are equal if they differ only in durations.
    seconds: float = field(compare=False)


@dataclass(frozen=True)
class Weakness:
    """The confusion table after the smallest perturbations, and the median distance of each class.

    Both leave out examples that the network misclassifies without a perturbation.

    Attributes:
        counts: [k][k], the number of examples on which an attack succeeded, by label (row) and by
            the class predicted for the perturbed example (column).
        median: [k], the median distance of the examples of each class.
    """

    counts: tuple[tuple[int, ...], ...]
    median: tuple[float | None, ...]


@dataclass(frozen=True)
class ReferenceFigures:
    """Accuracy and robustness of the undefended reference network on the same examples."""

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
    """The result of `evaluate`: the accuracy and the robustness of one network.

    The distance of an example is the size of the smallest perturbation found by any attack.
    `headline` withholds the main robustness figures if a severe check fails. `minima` holds the
    smallest perturbations of the network, and `reference_minima` those of the undefended reference
    network.
    """

    backend: str
    network: NetworkInfo
    data: FrozenDict[Any]
    threat: Threat
    preset: str
    seed: int
    headline: Headline
    distance: Distance
    curve: Curve
    intervals: FrozenDict[Interval]
    attacks: tuple[AttackLine, ...]
    checks: tuple[Check, ...]
    weakness: Weakness
    reference: ReferenceFigures | None
    comparison: Comparison | None
    manifest: FrozenDict[Any] = field(repr=False, compare=False)
    minima: Minima = field(repr=False, compare=False)
    reference_minima: Minima | None = field(repr=False, compare=False)
    x: HostArray = field(repr=False, compare=False)
    y: npt.NDArray[np.int64] = field(repr=False, compare=False)

    def __str__(self) -> str:
        """Return the main figures, or why they are withheld, and every check that does not pass."""
        headline, norm = self.headline, f"l{self.threat.p:g}"
        lines = [
            f"accuracy {100 * self.accuracy:.2f} % of {self.n:,} examples; "
            f"rho_2 {self.rho_2:.4g}, by DeepFool alone"
        ]
        if headline.withheld is not None:
            lines.append(f"no figure of robustness: {headline.withheld}")
        else:
            lines.append(
                f"median {norm} distance, best attack: {_format_distance(headline.distance_median)}"
            )
            if self.comparison is not None and self.comparison.median_ratio is not None:
                lines[-1] += f", {self.comparison.median_ratio:.2f} times the reference's"
            if headline.eps is not None and headline.robust_accuracy is not None:
                lines.append(
                    f"accuracy under attack, {norm} within {headline.eps:.4g}: "
                    f"{100 * headline.robust_accuracy:.2f} %"
                )
        passing = sum(check.status == "pass" for check in self.checks)
        lines.append(f"{passing} of {len(self.checks)} checks pass")
        return "\n".join(lines + [str(c) for c in self.checks if c.status != "pass"])

    @property
    def distances(self) -> npt.NDArray[np.float64]:
        """The distance of each example [n].

        It is 0 if the network misclassifies the unperturbed example, and inf if every attack fails.
        """
        return self.minima.distance

    @property
    def summary(self) -> Summary:
        """The accuracy and rho of this report without its other fields, as a `Summary`."""
        return Summary(**{f.name: getattr(self, f.name) for f in fields(Summary)})

    @property
    def trusted(self) -> bool:
        """Whether no severe check fails, so that the robustness figures can be trusted."""
        return find_severe_failure(self.checks) is None

    def as_dict(self) -> dict[str, Any]:
        """Return the content of report.json, made only of values that JSON can represent."""
        content: dict[str, Any] = {
            "schema": EVALUATION_SCHEMA,
            "backend": self.backend,
            "network": asdict(self.network),
            "data": self.data,
            "threat": asdict(self.threat),
            "preset": self.preset,
            "seed": self.seed,
            **super().as_dict(),
            "headline": asdict(self.headline),
            "distance": asdict(self.distance),
            "curve": asdict(self.curve),
            "intervals": self.intervals,
            "attacks": [asdict(line) for line in self.attacks],
            "checks": [asdict(check) for check in self.checks],
            "weakness": asdict(self.weakness),
            "reference": None if self.reference is None else asdict(self.reference),
            "comparison": None if self.comparison is None else asdict(self.comparison),
            "manifest": self.manifest,
        }
        return {key: to_json(value) for key, value in content.items()}


def _format_distance(distance: float | None) -> str:
    return "beyond what any attack found" if distance is None else f"{distance:.4g}"
