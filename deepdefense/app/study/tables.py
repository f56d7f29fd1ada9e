"""The study's tables: from trained cells to rows of figures."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
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
    started,
    trained,
)
from deepdefense.app.study.memory import MemoryTrial, measure_extra_memory
from deepdefense.app.study.methods import METHODS, Scale
from deepdefense.app.study.one_layer import OneLayer, list_layers
from deepdefense.app.study.table1 import make_table1
from deepdefense.attacks import fmn

__all__ = ["TABLES", "VARIATIONS"]

VARIATION_FACTORS = (0.25, 0.5, 2.0, 4.0)


def make_table2(bench: Bench, plan: StudyPlan) -> TableContent:
    """The same networks under stronger attacks, within eps and for the nearest point."""
    rows = []
    for seed in plan.seeds:
        eps: dict[str, float] = {}
        for cell in trained(bench, plan, seed):
            if not eps:
                eps = _measure_median_distances(bench, cell, plan.examples)
            lines = measurements.measure_attacks(
                cell.model, bench.backend, bench.data, cell.folder, plan.examples, eps
            )
            rows += [about(bench, cell) | line for line in lines]
    return TableContent(rows, {})


def _measure_median_distances(
    bench: Bench, reference: TrainedNetwork, examples: int
) -> dict[str, float]:
    """The reference's median distances, in either norm: the eps of attacks within a ball."""

    def compute() -> dict[str, float]:
        x, y = measurements.take_first_examples(
            bench.data, examples, bench.backend, reference.model
        )
        found = {}
        for norm, p in (("l2", 2.0), ("linf", np.inf)):
            delta = fmn(reference.model, x, y, p=p, bounds=bench.data.pixel_bounds()).delta
            rows = bench.backend.to_numpy(delta).reshape(len(x), -1)
            found[norm] = float(f"{np.median(np.linalg.norm(rows, p, axis=1)):.3g}")
        return found

    return measurements.load_or_compute(reference.folder, f"sizes-{examples}", compute)


def make_epochs_table(bench: Bench, plan: StudyPlan) -> TableContent:
    """Accuracy and rho_2 over the epochs of each method."""
    rows: list[TableRow] = []
    first: list[TrainedNetwork] = []
    for seed in plan.seeds:
        cells = [cell for cell in trained(bench, plan, seed) if cell.report]
        first = first or cells
        rows += [
            about(bench, cell) | {name: record[name] for name in ("epoch", "accuracy", "rho_2")}
            for cell in cells
            for record in cell.report["history"]
        ]
    return TableContent(rows, _collect_curves(first, "accuracy", "rho_2"))


def _collect_curves(cells: Sequence[TrainedNetwork], *names: str) -> dict[str, Any]:
    """Curves of what the epochs' records hold, by the name of it and by method."""
    return {
        name: {
            cell.method: {"epoch": [record["epoch"] for record in history], name: values}
            for cell in cells
            if (history := cell.report["history"])
            and None not in (values := [record.get(name) for record in history])
        }
        for name in names
    }


def make_cost_table(bench: Bench, plan: StudyPlan) -> TableContent:
    """What each method takes: time, memory, and the iterations of its searches as it trains."""
    rows: list[TableRow] = []
    first: list[TrainedNetwork] = []
    for seed in plan.seeds:
        reference, scale, _ = started(bench, plan, seed)
        trials = [bench.cell(name, seed, reference, scale) for name in plan.methods]
        cells = [cell for cell in trials if cell.report["history"]]  # it got past its first epoch
        first = first or [cell for cell in cells if cell.report["history"][0].get("iterations")]
        for cell in cells:
            history = cell.report["history"]
            before, after = cell.report["before"], cell.report["after"]
            rows.append(
                about(bench, cell)
                | {
                    "seconds_per_epoch": float(
                        np.median([record["seconds"] for record in history])
                    ),
                    "step_ratio": cell.report["cost"]["ratio"],
                    "mb_beyond_plain": _measure_memory(bench, cell, reference[0], scale),
                    "iterations_first": history[0].get("iterations"),
                    "iterations_last": history[-1].get("iterations"),
                    "unfinished_first": history[0]["unfinished"],
                    "unfinished_last": history[-1]["unfinished"],
                    "iterations_before": before["iterations_mean"],
                    "iterations_after": after["iterations_mean"],
                }
            )
    return TableContent(rows, _collect_curves(first, "iterations", "unfinished"))


def _measure_memory(
    bench: Bench, cell: TrainedNetwork, reference: Any, scale: Scale
) -> float | None:
    """MB that a few batches take by the cell's method, beyond plain training on them."""

    def compute() -> dict[str, Any]:
        batch = bench.experiment.recipe.batch_size
        trial = MemoryTrial(
            framework=bench.backend.name,
            network=bench.network,
            weights=bench.backend.weights(reference),
            x=bench.data.x_train[: 5 * batch],
            y=bench.data.y_train[: 5 * batch],
            batch_size=batch,
            objective=METHODS[cell.method].objective(scale),
        )
        return {"mb_beyond_plain": measure_extra_memory(trial)}

    found: float | None = measurements.load_or_compute(cell.folder, "memory", compute)[
        "mb_beyond_plain"
    ]
    return found


def make_ablation_table(bench: Bench, plan: StudyPlan) -> TableContent:
    """Deep Defense with c, d and lambda a quarter to four times what they are."""
    rows = []
    for seed in plan.seeds:
        reference, scale, _ = started(bench, plan, seed)
        for name, factor in [("", 1.0)] + [
            (n, f) for n in ("c", "d", "lam") for f in VARIATION_FACTORS
        ]:
            defense = scale.fitted
            if name:
                defense = replace(defense, **{name: factor * getattr(defense, name)})
            tag = f"deepdefense-{name}-{factor:g}" if name else "deepdefense"
            cell = bench.cell("deepdefense", seed, reference, scale, tag=tag, objective=defense)
            side = cell.report["after"]
            rows.append(
                about(bench, replace(cell, method="deepdefense"))
                | {"changed": name or "nothing", "factor": factor}
                | {n: getattr(defense, n) for n in ("c", "d", "lam")}
                | {"accuracy": side["accuracy"], "rho_2": side["rho_2"]}
                | {"stopped": cell.report["stopped"], "notes": cell.report["notes"]}
            )
    return TableContent(rows, {})


def make_layers_table(bench: Bench, plan: StudyPlan) -> TableContent:
    """The penalty differentiated in the parameters of one layer at a time, and of all."""
    rows = []
    for seed in plan.seeds:
        reference, scale, _ = started(bench, plan, seed)
        names = list_layers(bench.backend, reference[0])
        for name in ["all", *names]:
            objective = scale.fitted
            if name != "all":
                objective = OneLayer(**asdict(scale.fitted), layer=name)
            tag = "deepdefense" if name == "all" else f"deepdefense-{name}"
            cell = bench.cell("deepdefense", seed, reference, scale, tag=tag, objective=objective)
            side = cell.report["after"]
            rows.append(
                about(bench, replace(cell, method="deepdefense"))
                | {"layer": name, "accuracy": side["accuracy"], "rho_2": side["rho_2"]}
                | {"before": cell.report["before"]["rho_2"]}
            )
    return TableContent(rows, {})


TABLES: Mapping[str, Callable[[Bench, StudyPlan], TableContent]] = {
    "table1": make_table1,
    "table2": make_table2,
    "epochs": make_epochs_table,
    "ablation": make_ablation_table,
    "layers": make_layers_table,
    "cost": make_cost_table,
}


VARIATIONS = ("ablation", "layers")  # of Deep Defense, fitted; no other method is trained
