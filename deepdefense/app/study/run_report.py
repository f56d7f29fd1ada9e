"""Read the figures that the study's tables need from the report.json of a hardening run."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

from deepdefense.evaluation.rho_protocol import Summary
from deepdefense.training.cost import Cost
from deepdefense.training.history import EpochRecord

__all__ = ["RunReport", "read_report"]

RecordT = TypeVar("RecordT")


@dataclass(frozen=True)
class RunReport:
    """The figures of one hardening run. The fields mean the same as in `HardeningReport`."""

    before: Summary
    after: Summary
    history: tuple[EpochRecord, ...]
    cost: Cost
    stopped: str | None
    notes: tuple[str, ...]


def read_report(path: Path) -> RunReport:
    """Return the figures in the report.json of a hardening run."""
    content = json.loads(path.read_text(encoding="utf-8"))
    return RunReport(
        before=_read_record(Summary, content["before"]),
        after=_read_record(Summary, content["after"]),
        history=tuple(_read_record(EpochRecord, epoch) for epoch in content["history"]),
        cost=_read_record(Cost, content["cost"]),
        stopped=content["stopped"],
        notes=tuple(content["notes"]),
    )


def _read_record(kind: type[RecordT], entries: Mapping[str, Any]) -> RecordT:
    """Return an instance of the dataclass `kind` whose fields have the values in `entries`.

    Other entries are ignored. The text "inf" becomes infinity.
    """
    names = [field.name for field in fields(kind)]  # type: ignore[arg-type]
    return kind(
        **{
            name: math.inf if entries[name] == "inf" else entries[name]
            for name in names
            if name in entries
        }
    )
