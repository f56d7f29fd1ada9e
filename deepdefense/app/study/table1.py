"""The paper's table: accuracy, robustness, and accuracy under the fast gradient sign."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from deepdefense.app.study import measurements
from deepdefense.app.study.cells import (
    Bench,
    StudyPlan,
    TableContent,
    TableRow,
    TrainedNetwork,
    about,
    trained,
)
from deepdefense.errors import InputError
from deepdefense.evaluation import eps_ref

__all__ = ["make_table1"]

EPS_FRACTIONS, ACCURACY_LEVELS = (0.2, 0.5, 1.0), (0.7, 0.5, 0.3)


def make_table1(bench: Bench, plan: StudyPlan) -> TableContent:
    """Accuracy, rho_2, distances, and accuracy under FGS at common sizes of the step.

    The sizes are fractions of eps_ref, the step that brings Deep Defense's network (or the last
    method's, if it is not among them) to 50 %; and, side by side, of every method at three levels.
    """
    rows, curves = [], {}
    for seed in plan.seeds:
        cells = list(trained(bench, plan, seed))
        names = [cell.method for cell in cells]
        named = "deepdefense" if "deepdefense" in names else names[-1]
        sizes = {
            (cell.method, level): eps
            for cell in cells
            for level in ACCURACY_LEVELS
            if (eps := _find_eps_ref(bench, cell, plan.examples, level)) is not None
        }
        base = sizes.get((named, 0.5))
        grid = [] if base is None else np.linspace(0, 2 * base, measurements.CURVE_POINTS).tolist()
        start = measurements.measure_distances(
            cells[0].model, bench.data, cells[0].folder, plan.examples
        )
        for cell in cells:
            own = cell if cell.report else cells[1]  # the reference is what another began with
            accuracy = _measure_under_fgs(bench, cell, plan.examples, [base, *sizes.values()], grid)
            rows.append(
                about(bench, cell)
                | _robustness(bench, cell, own, start, plan.examples)
                | {"eps_ref": base, "eps_ref_of": named}
                | {
                    f"fgs_{f:g}": None if base is None else accuracy[f * base]
                    for f in EPS_FRACTIONS
                }
                | {"fgs_at": _align_sizes(sizes, accuracy)}
            )
            if seed == plan.seeds[0] and grid:
                curves[cell.method] = {"eps": grid, "accuracy": [accuracy[eps] for eps in grid]}
    return TableContent(rows, {"fgs": curves})


def _robustness(
    bench: Bench, cell: TrainedNetwork, own: TrainedNetwork, start: Mapping[str, Any], examples: int
) -> TableRow:
    """What the cell's own report and the attacks say, and how that grew from the reference."""
    side = own.report["after" if cell.report else "before"]
    far = measurements.measure_distances(cell.model, bench.data, cell.folder, examples)
    return {
        "epochs": len(cell.report["history"]) if cell.report else None,
        "accuracy": side["accuracy"],
        "rho_2": side["rho_2"],
        "median_l2": far["median_l2"],
        "median_l2_deepfool": far["median_l2_deepfool"],
        "growth": _compute_growth(far["median_l2"], start["median_l2"]),
        "growth_deepfool": _compute_growth(far["median_l2_deepfool"], start["median_l2_deepfool"]),
        "failing_checks": far["failing_checks"],
        "stopped": cell.report["stopped"] if cell.report else None,
    }


def _compute_growth(after: float | None, before: float | None) -> float | None:
    return None if after is None or not before else after / before


def _find_eps_ref(bench: Bench, cell: TrainedNetwork, examples: int, level: float) -> float | None:
    """The step that brings the network to the level, or None if it is not above it to begin."""
    x, y = bench.data.x_test[:examples], bench.data.y_test[:examples]
    try:
        return float(f"{eps_ref(cell.model, x, y, level=level):.4g}")
    except InputError:
        return None


def _measure_under_fgs(
    bench: Bench,
    cell: TrainedNetwork,
    examples: int,
    sizes: Sequence[float | None],
    grid: Sequence[float],
) -> dict[float, float]:
    """Accuracy under FGS by eps: each fraction of each size, and the grid, from one gradient."""
    steps = [f * size for size in sizes if size is not None for f in EPS_FRACTIONS]
    wanted = sorted({*steps, *grid})
    return dict(
        zip(wanted, measurements.measure_fgs(cell.model, bench.data, wanted, examples), strict=True)
    )


def _align_sizes(
    sizes: Mapping[tuple[str, float], float], accuracy: Mapping[float, float]
) -> dict[str, dict[str, float]]:
    """The same at fractions of each method's eps_ref at each level."""
    return {
        f"{method} at {level:.0%}": {"eps": eps}
        | {f"{fraction:g}": accuracy[fraction * eps] for fraction in EPS_FRACTIONS}
        for (method, level), eps in sizes.items()
    }
