"""What a hardening run reports."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from deepdefense.defenses.objective import Objective
from deepdefense.evaluation.protocol import RHO_ATTACK
from deepdefense.evaluation.provenance import NetworkInfo, to_json
from deepdefense.evaluation.rho import Summary
from deepdefense.training.guard import Guard
from deepdefense.training.loop import EpochRecord
from deepdefense.training.recipe import Recipe

__all__ = ["Cost", "CurveSample", "HardeningReport", "describe_objective"]

HARDENING_SCHEMA = "deepdefense.harden/1"


@dataclass(frozen=True)
class Cost:
    """Medians of single steps on the same batches, plain and hardening in turn."""

    plain_step_seconds: float
    hardening_step_seconds: float
    ratio: float


@dataclass(frozen=True)
class CurveSample:
    """The held-out examples that the history's rho_2 is of, and where they began."""

    n: int
    rho_2_before: float


def describe_objective(objective: Objective) -> dict[str, Any]:
    """The name of an objective and all its settings."""
    return {"method": type(objective).__name__, **asdict(objective)}


@dataclass(frozen=True)
class HardeningReport:
    """What a hardening run began with, came to and cost."""

    backend: str
    network: NetworkInfo
    data: tuple[tuple[str, Any], ...]
    defense: Objective
    recipe: Recipe
    guard: Guard
    environment: tuple[tuple[str, Any], ...]
    before: Summary
    after: Summary
    history: tuple[EpochRecord, ...]
    sample: CurveSample
    cost: Cost
    stopped: str | None
    warnings: tuple[str, ...]
    notes: tuple[str, ...]

    def __str__(self) -> str:
        """Before and after, the price, and what there is to heed."""
        lines = [
            f"accuracy {100 * self.before.accuracy:.2f} % -> {100 * self.after.accuracy:.2f} %, "
            f"rho_2 {self.before.rho_2:.4f} -> {self.after.rho_2:.4f} by DeepFool, "
            f"on {self.after.n:,} held-out examples",
            f"{len(self.history)} of {self.recipe.epochs} epochs, "
            f"each step at {self.cost.ratio:.1f} times a plain one",
        ]
        if self.stopped:
            lines.append(f"stopped: {self.stopped}")
        return "\n".join([*lines, *(f"warning: {line}" for line in self.warnings), *self.notes])

    def as_dict(self) -> dict[str, Any]:
        """The content of report.json."""
        content = {
            "schema": HARDENING_SCHEMA,
            "backend": self.backend,
            "network": asdict(self.network),
            "data": dict(self.data),
            "config": describe_objective(self.defense)
            | asdict(self.recipe)
            | asdict(self.guard)
            | {f"evaluation_{name}": value for name, value in RHO_ATTACK.items()},
            "environment": dict(self.environment),
            "before": self.before.as_dict(),
            "after": self.after.as_dict(),
            "history": [asdict(record) for record in self.history],
            "sample": asdict(self.sample),
            "cost": asdict(self.cost),
            "stopped": self.stopped,
            "warnings": self.warnings,
            "notes": self.notes,
        }
        return {key: to_json(value) for key, value in content.items()}
