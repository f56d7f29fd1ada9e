"""The study's tables: from trained cells to rows of figures."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from deepdefense.attacks import fmn
from deepdefense.errors import InputError
from deepdefense.evaluation import eps_ref
from deepdefense.study import figures
from deepdefense.study.cells import Bench, Cell
from deepdefense.study.layers import OneLayer, layers_of
from deepdefense.study.methods import METHODS, Scale

__all__ = ["TABLES", "Found", "Plan"]

Row = dict[str, Any]
FRACTIONS, LEVELS = (0.2, 0.5, 1.0), (0.7, 0.5, 0.3)
FACTORS = (0.25, 0.5, 2.0, 4.0)


class Plan(NamedTuple):
    """What to run: methods and seeds, and how many held-out examples attacks are shown."""

    methods: Sequence[str]
    seeds: Sequence[int]
    examples: int
    weights: Path | None  # of the reference network


class Found(NamedTuple):
    """A table's rows, and curves by the name of what they show."""

    rows: list[Row]
    curves: dict[str, Any]


def _start(bench: Bench, plan: Plan, seed: int) -> tuple[tuple[Any, str], Scale, Cell]:
    """The reference network, its scale, and itself as a cell."""
    reference = bench.reference(plan.weights, seed)
    scale = bench.scale(reference[0])
    folder = bench.folder / f"reference-{seed}"
    return reference, scale, Cell("reference", seed, reference[0], {}, folder)


def _row(bench: Bench, cell: Cell) -> Row:
    """What every table says of a cell."""
    label = "reference" if cell.method == "reference" else METHODS[cell.method].label
    return {
        "network": bench.subject.network,
        "data": bench.subject.data,
        "method": cell.method,
        "label": label,
        "seed": cell.seed,
    }


def _cells(bench: Bench, plan: Plan, seed: int) -> Iterator[Cell]:
    """The reference, and each method's network."""
    reference, scale, first = _start(bench, plan, seed)
    yield first
    for name in plan.methods:
        yield bench.cell(name, seed, reference, scale)


def table1(bench: Bench, plan: Plan) -> Found:
    """Accuracy, rho_2, distances, and accuracy under FGS at common sizes of the step.

    The sizes are fractions of eps_ref, the step that brings Deep Defense's network (or the last
    method's, if it is not among them) to 50 %; and, side by side, of every method at three levels.
    """
    rows, curves = [], {}
    for seed in plan.seeds:
        cells = list(_cells(bench, plan, seed))
        x, y = (v[: plan.examples] for v in (bench.data.x_test, bench.data.y_test))
        named = next((c for c in cells if c.method == "deepdefense"), cells[-1])

        def steps(cell: Cell, x: Any = x, y: Any = y) -> dict[str, float | None]:
            return {f"{level:.0%}": _eps(cell.model, x, y, level) for level in LEVELS}

        sources = {cell.method: steps(cell) for cell in cells}
        base = sources[named.method]["50%"] or 1.0
        grid = [float(v) for v in np.linspace(0, 2 * base, figures.CURVE)]
        start = figures.distances(cells[0].model, bench.data, cells[0].folder, plan.examples)
        for cell in cells:
            report = cell.report or cells[1].report
            side = report["after" if cell.report else "before"]
            far = figures.distances(cell.model, bench.data, cell.folder, plan.examples)
            at = {
                f"{source} at {level}": dict(
                    zip(
                        (f"{fraction:g}" for fraction in FRACTIONS),
                        figures.fgs(
                            cell.model, bench.data, [f * eps for f in FRACTIONS], plan.examples
                        ),
                        strict=True,
                    ),
                    eps=eps,
                )
                for source, levels in sources.items()
                for level, eps in levels.items()
                if eps is not None
            }
            common = figures.fgs(
                cell.model, bench.data, [f * base for f in FRACTIONS], plan.examples
            )
            rows.append(
                _row(bench, cell)
                | {
                    "epochs": len(cell.report["history"]) if cell.report else None,
                    "accuracy": side["accuracy"],
                    "rho_2": side["rho_2"],
                    "median_l2": far["median_l2"],
                    "median_l2_deepfool": far["median_l2_deepfool"],
                    "growth": _over(far["median_l2"], start["median_l2"]),
                    "growth_deepfool": _over(
                        far["median_l2_deepfool"], start["median_l2_deepfool"]
                    ),
                    "eps_ref": base,
                    "eps_ref_of": named.method,
                    **{f"fgs_{f:g}": v for f, v in zip(FRACTIONS, common, strict=True)},
                    "fgs_at": at,
                    "failing_checks": far["failing_checks"],
                    "stopped": cell.report.get("stopped") if cell.report else None,
                }
            )
            if seed == plan.seeds[0]:
                values = figures.fgs(cell.model, bench.data, grid, plan.examples)
                curves[cell.method] = {"eps": grid, "accuracy": values}
    return Found(rows, {"fgs": curves})


def _eps(model: Any, x: Any, y: Any, level: float) -> float | None:
    """eps_ref, or None where accuracy is not above the level to begin with."""
    try:
        return float(f"{eps_ref(model, x, y, level=level):.4g}")
    except InputError:
        return None


def _over(after: float | None, before: float | None) -> float | None:
    return None if after is None or not before else after / before


def table2(bench: Bench, plan: Plan) -> Found:
    """The same networks under stronger attacks, within eps and for the nearest point."""
    rows = []
    for seed in plan.seeds:
        eps: dict[str, float] = {}
        for cell in _cells(bench, plan, seed):
            if not eps:
                eps = _sizes(bench, cell, plan.examples)
            lines = figures.attacked(
                cell.model, bench.backend, bench.data, cell.folder, plan.examples, eps
            )
            rows += [_row(bench, cell) | line for line in lines]
    return Found(rows, {})


def _sizes(bench: Bench, reference: Cell, examples: int) -> dict[str, float]:
    """The reference's median distances, in either norm: the eps of attacks within a ball."""

    def compute() -> dict[str, float]:
        x, y = figures.chosen(bench.data, examples, bench.backend, reference.model)
        found = {}
        for norm, p in (("l2", 2.0), ("linf", np.inf)):
            delta = fmn(reference.model, x, y, p=p, bounds=bench.data.bounds()).delta
            rows = bench.backend.to_numpy(delta).reshape(len(x), -1)
            found[norm] = float(f"{np.median(np.linalg.norm(rows, p, axis=1)):.3g}")
        return found

    return figures.kept(reference.folder, f"sizes-{examples}", compute)


def epochs(bench: Bench, plan: Plan) -> Found:
    """Accuracy and rho_2 over the epochs of each method."""
    rows = []
    for seed in plan.seeds:
        for cell in _cells(bench, plan, seed):
            rows += [
                _row(bench, cell)
                | {name: record[name] for name in ("epoch", "accuracy", "rho_2", "unfinished")}
                for record in cell.report.get("history", ())
            ]
    curves = {
        name: {
            method: {
                "epoch": [r["epoch"] for r in own],
                name: [r[name] for r in own],
            }
            for method in plan.methods
            if (own := [r for r in rows if r["method"] == method and r["seed"] == plan.seeds[0]])
        }
        for name in ("accuracy", "rho_2")
    }
    return Found(rows, curves)


def cost(bench: Bench, plan: Plan) -> Found:
    """What each method takes: seconds an epoch, steps against plain ones, unfinished searches."""
    rows = []
    for seed in plan.seeds:
        for cell in _cells(bench, plan, seed):
            if not (history := cell.report.get("history")):
                continue
            seconds = [record["seconds"] for record in history]
            rows.append(
                _row(bench, cell)
                | {
                    "seconds_per_epoch": float(np.median(seconds)),
                    "step_ratio": cell.report["cost"]["ratio"],
                    "unfinished_first": history[0]["unfinished"],
                    "unfinished_last": history[-1]["unfinished"],
                    "iterations_before": cell.report["before"]["iterations_mean"],
                    "iterations_after": cell.report["after"]["iterations_mean"],
                }
            )
    return Found(rows, {})


def ablation(bench: Bench, plan: Plan) -> Found:
    """Deep Defense with c, d and lambda a quarter to four times what they are."""
    rows = []
    for seed in plan.seeds:
        reference, scale, _ = _start(bench, plan, seed)
        for name, factor in [("", 1.0)] + [(n, f) for n in ("c", "d", "lam") for f in FACTORS]:
            defense = scale.fitted
            if name:
                defense = replace(defense, **{name: factor * getattr(defense, name)})
            tag = f"deepdefense-{name}-{factor:g}" if name else "deepdefense"
            cell = bench.cell("deepdefense", seed, reference, scale, tag=tag, objective=defense)
            side = cell.report["after"]
            rows.append(
                _row(bench, replace(cell, method="deepdefense"))
                | {"changed": name or "nothing", "factor": factor}
                | {n: getattr(defense, n) for n in ("c", "d", "lam")}
                | {"accuracy": side["accuracy"], "rho_2": side["rho_2"]}
                | {"stopped": cell.report["stopped"], "notes": cell.report["notes"]}
            )
    return Found(rows, {})


def layers(bench: Bench, plan: Plan) -> Found:
    """The penalty differentiated in the parameters of one layer at a time, and of all."""
    rows = []
    for seed in plan.seeds:
        reference, scale, _ = _start(bench, plan, seed)
        names = layers_of(bench.backend, reference[0])
        for name in ["all", *names]:
            objective = scale.fitted
            if name != "all":
                objective = OneLayer(**asdict(scale.fitted), layer=name)
            tag = "deepdefense" if name == "all" else f"deepdefense-{name}"
            cell = bench.cell("deepdefense", seed, reference, scale, tag=tag, objective=objective)
            side = cell.report["after"]
            rows.append(
                _row(bench, replace(cell, method="deepdefense"))
                | {"layer": name, "accuracy": side["accuracy"], "rho_2": side["rho_2"]}
                | {"before": cell.report["before"]["rho_2"]}
            )
    return Found(rows, {})


TABLES: Mapping[str, Callable[[Bench, Plan], Found]] = {
    "table1": table1,
    "table2": table2,
    "epochs": epochs,
    "ablation": ablation,
    "layers": layers,
    "cost": cost,
}
