"""What a hardening run came to: its report, and the files it leaves."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from deepdefense.assessor import Guard
from deepdefense.attacks.deepfool import deepfool
from deepdefense.data import Dataset
from deepdefense.evaluation.rho import Measurement, Summary
from deepdefense.objective import Objective
from deepdefense.provenance import NetworkInfo, plain
from deepdefense.runs import CHECKPOINT, HARDENED, REPORT, RunFolder
from deepdefense.stages import EpochRecord
from deepdefense.training import Recipe, TrainingBackend

__all__ = [
    "ATTACK",
    "Cost",
    "HardeningReport",
    "Sample",
    "method",
    "write_results",
]

SCHEMA = "deepdefense.harden/1"
PAGE = "report.html"
# The evaluation's attack: the paper's protocol, whatever the settings of training are.
ATTACK: Mapping[str, Any] = {"steps": 50, "overshoot": 0.02, "candidates": 10}
GALLERY = 6


@dataclass(frozen=True)
class Cost:
    """Medians of single steps on the same batches, plain and hardening in turn."""

    plain_step_seconds: float
    hardening_step_seconds: float
    ratio: float


@dataclass(frozen=True)
class Sample:
    """The held-out examples that the history's rho_2 is of, and where they began."""

    n: int
    rho_2_before: float


def method(objective: Objective) -> dict[str, Any]:
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
    sample: Sample
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
            "schema": SCHEMA,
            "backend": self.backend,
            "network": asdict(self.network),
            "data": dict(self.data),
            "config": method(self.defense)
            | asdict(self.recipe)
            | asdict(self.guard)
            | {f"evaluation_{name}": value for name, value in ATTACK.items()},
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
        return {key: plain(value) for key, value in content.items()}


def write_results(
    run: RunFolder,
    report: HardeningReport,
    backend: TrainingBackend,
    model: Any,
    hardened: Any,
    data: Dataset,
    before: Measurement,
    after: Measurement,
) -> None:
    """The results, the report last: a folder with a report.json is complete."""
    from deepdefense.report import render  # matplotlib and Jinja2 are in the extra `cli`

    content = report.as_dict()
    about = {"network": content["network"], "data": content["data"], "after": content["after"]}
    run.save(HARDENED, backend.weights(hardened), about)
    page = render(
        content,
        rho_before=before.rho,
        rho_after=after.rho,
        gallery=_gallery(backend, model, hardened, data, before, after),
    )
    run.write(PAGE, page)
    run.write(REPORT, json.dumps(content, indent=2, allow_nan=False) + "\n")
    run.remove(CHECKPOINT)


def _gallery(
    backend: TrainingBackend,
    model: Any,
    hardened: Any,
    data: Dataset,
    before: Measurement,
    after: Measurement,
) -> Any:
    """The first examples of as many classes that both networks get right, with what fools them."""
    from deepdefense.report import Gallery

    usable = before.correct & after.correct & before.success & after.success
    rows = [np.flatnonzero(usable & (data.y_test == label))[:1] for label in range(data.classes)]
    chosen = np.concatenate(rows)[:GALLERY]
    images = data.display(data.x_test[chosen])
    if images is None or not len(chosen):
        return None
    batch = backend.asarray(data.x_test[chosen], model)
    deltas, names = [], []
    for network in (model, hardened):
        with backend.precise():
            found = deepfool(network, batch, **ATTACK)
            with backend.inference(network) as f:
                fooled = backend.to_numpy(backend.forward(f, found.x)).argmax(1)
        perturbed = data.display(backend.to_numpy(found.x))
        assert perturbed is not None
        deltas.append(perturbed - images)
        names.append(tuple(data.class_names[i] if i < data.classes else str(i) for i in fooled))
    return Gallery(
        images=images,
        delta_before=deltas[0],
        delta_after=deltas[1],
        labels=tuple(data.class_names[label] for label in data.y_test[chosen]),
        fooled_before=names[0],
        fooled_after=names[1],
        rho_before=before.rho[chosen],
        rho_after=after.rho[chosen],
    )
