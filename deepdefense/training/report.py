"""The report on a hardening run, returned by `harden` and written to report.json."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from deepdefense.defenses.objective import Objective
from deepdefense.evaluation.provenance import NetworkInfo, to_json
from deepdefense.evaluation.rho_protocol import RHO_ATTACK, Summary
from deepdefense.seam.frozen_dict import FrozenDict
from deepdefense.training.cost import Cost
from deepdefense.training.guard import Guard
from deepdefense.training.history import EpochRecord
from deepdefense.training.recipe import Recipe
from deepdefense.training.rehearsal import Rehearsal
from deepdefense.training.verdict import HardeningVerdict

__all__ = ["CurveSample", "HardeningReport", "describe_objective"]

HARDENING_SCHEMA = "deepdefense.harden/1"


@dataclass(frozen=True)
class CurveSample:
    """The sample of held-out examples on which the history records rho_2 after each period.

    `n` is the number of examples in the sample. `rho_2_before` is the mean rho_2 of these examples
    before training.
    """

    n: int
    rho_2_before: float


def describe_objective(objective: Objective) -> dict[str, Any]:
    """Return a dictionary of the objective's class name, as "method", and its settings by name."""
    return {"method": type(objective).__name__, **asdict(objective)}


@dataclass(frozen=True)
class HardeningReport:
    """The settings, results and cost of a hardening run.

    - `verdict`: how distance, by strong attacks, and accuracy changed on held-out examples.
    - `before`, `after`: summaries of the original and the hardened network on held-out examples.
    - `history`: a record for each accepted period: an epoch, or a tenth of `optimizer_steps`.
    - `stopped`: the reason, if a rejected period ended training early; None otherwise.
    - `notes`: one line for each other event of training, such as a period that was tried again.
    - `warnings`: reasons to doubt the measurement before training.
    - `rehearsal`: with stages, the rehearsal that chose the strength of the penalty; else None.
    - `no_gain`: the reason, if the given network is returned as it is; None otherwise.
    """

    backend: str
    network: NetworkInfo
    data: FrozenDict[Any]
    defense: Objective
    recipe: Recipe
    guard: Guard
    environment: FrozenDict[Any]
    verdict: HardeningVerdict
    before: Summary
    after: Summary
    history: tuple[EpochRecord, ...]
    sample: CurveSample
    cost: Cost
    stopped: str | None
    warnings: tuple[str, ...]
    notes: tuple[str, ...]
    rehearsal: Rehearsal | None = None
    no_gain: str | None = None

    def __str__(self) -> str:
        """Return lines of text: the verdict, rho_2 before and after, cost, warnings and notes."""
        lines = [
            str(self.verdict),
            f"rho_2 {self.before.rho_2:.4f} -> {self.after.rho_2:.4f} by DeepFool alone, an upper "
            f"bound that flatters hardened networks, {self.after.n:,} held-out examples",
            f"{self._describe_length()}, each step at {self.cost.ratio:.1f} times a plain one",
        ]
        if self.stopped:
            lines.append(f"stopped: {self.stopped}")
        return "\n".join([*lines, *(f"warning: {line}" for line in self.warnings), *self.notes])

    def _describe_length(self) -> str:
        """Return how long training was, in words."""
        if self.rehearsal is None:
            return f"{len(self.history)} of {self.recipe.periods} {self.recipe.period_name}s"
        stages = len(self.rehearsal.accepted) if self.history else 0
        name = "stage" if stages == 1 else "stages"
        words = f"{stages} {name} of {self.recipe.optimizer_steps:,} steps"
        return f"{words} after a rehearsal of {len(self.rehearsal.stages)}"

    @property
    def config(self) -> dict[str, Any]:
        """All settings by name: those of the objective, recipe, guard and rho evaluation."""
        return {
            **describe_objective(self.defense),
            **asdict(self.recipe),
            **asdict(self.guard),
            **{f"evaluation_{name}": value for name, value in RHO_ATTACK.items()},
        }

    def as_dict(self) -> dict[str, Any]:
        """Return the report as a dictionary, with the keys and values of report.json."""
        content = {
            "schema": HARDENING_SCHEMA,
            "backend": self.backend,
            "network": asdict(self.network),
            "data": dict(self.data),
            "config": self.config,
            "environment": dict(self.environment),
            "verdict": self.verdict.as_dict(),
            "before": self.before.as_dict(),
            "after": self.after.as_dict(),
            "history": [asdict(record) for record in self.history],
            "sample": asdict(self.sample),
            "cost": asdict(self.cost),
            "stopped": self.stopped,
            "warnings": self.warnings,
            "notes": self.notes,
            "rehearsal": self.rehearsal and asdict(self.rehearsal),
            "no_gain": self.no_gain,
        }
        return {key: to_json(value) for key, value in content.items()}
