"""An evaluation on disk: report.json, and the page with its pictures."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np

from deepdefense.app.runs import REPORT, RunFolder
from deepdefense.evaluation.report import Report
from deepdefense.evaluation.subject import HostArray

__all__ = ["write"]

PAGE = "report.html"


GALLERY = 6


# Examples [n ...] as pictures [n h w c] in 0..1, if any.
Display = Callable[[HostArray], HostArray | None]


def write(run: RunFolder, report: Report, display: Display | None = None) -> None:
    """The page, then the report: a folder with a report.json is complete."""
    from deepdefense.app.pages import render_evaluation

    content = report.as_dict()
    page = render_evaluation(
        report,
        gallery=_weakest(report, content, display or _by_bounds(report)),
    )
    run.write(PAGE, page)
    run.write(REPORT, json.dumps(content, indent=2, allow_nan=False) + "\n")
    run.attack_storage.clear()


def _by_bounds(report: Report) -> Display:
    """Images with their channels first or last, in bounds of [0, 1], as they are."""

    def display(x: HostArray) -> HostArray | None:
        if report.threat.bounds != "0 to 1" or x.ndim != 4:
            return None
        if x.shape[1] in (1, 3):
            return np.moveaxis(x, 1, 3)
        return x if x.shape[3] in (1, 3) else None

    return display


def _weakest(report: Report, content: dict[str, Any], display: Display) -> Any:
    """The examples that the smallest perturbations fool, with what fools them."""
    from deepdefense.app.pages import WeakestExamples

    found = report.minima
    fooled = np.flatnonzero(found.by >= 0)
    rows = fooled[np.argsort(found.distance[fooled], kind="stable")][:GALLERY]
    if not len(rows):
        return None
    images, perturbed = display(report.x[rows]), display(found.points[rows])
    if images is None or perturbed is None:
        return None
    names = content["data"]["class_names"]

    def name(label: int) -> str:
        return str(names[label]) if label < len(names) else str(label)

    return WeakestExamples(
        images=images,
        deltas=perturbed - images,
        labels=tuple(name(int(i)) for i in report.y[rows]),
        fooled=tuple(name(int(i)) for i in found.predicted[rows]),
        distances=found.distance[rows],
        attacks=tuple(found.outcomes[i].attack.name for i in found.by[rows]),
        rows=tuple(int(i) for i in rows),
    )
