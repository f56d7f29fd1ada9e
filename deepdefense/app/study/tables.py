"""Make the tables of the study from the trained networks.

A table consists of rows of figures; some tables also have curves.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np

from deepdefense.app.study import measurements
from deepdefense.app.study.experiment_runner import (
    ExperimentRunner,
    HardenedNetwork,
    StudyPlan,
    TableContent,
    TableRow,
    TrainedNetwork,
    describe_network,
    prepare_reference,
    train_networks,
)
from deepdefense.app.study.memory import MemoryTrial, measure_extra_memory
from deepdefense.app.study.methods import METHODS, Scale
from deepdefense.app.study.one_layer import OneLayer, list_layers
from deepdefense.app.study.table1 import make_table1
from deepdefense.attacks import fmn
from deepdefense.training.history import EpochRecord

__all__ = ["TABLES", "VARIATIONS"]

# Each run of the ablation multiplies one of these settings by one of these factors.
VARIED_SETTINGS = ("c", "d", "lam")
VARIATION_FACTORS = (0.25, 0.5, 2.0, 4.0)


def make_table2(runner: ExperimentRunner, plan: StudyPlan) -> TableContent:
    """Make the table of attacks stronger than FGS, both minimum-norm and fixed-budget."""
    rows = []
    for seed in plan.seeds:
        eps: dict[str, float] = {}
        for network in train_networks(runner, plan, seed):
            if not eps:  # `network` is the reference network, which comes first
                eps = _measure_median_distances(runner, network, plan.examples)
            lines = measurements.measure_attacks(
                network.model, runner.backend, runner.data, network.folder, plan.examples, eps
            )
            rows += [describe_network(runner, network) | line for line in lines]
    return TableContent(rows, {})


def _measure_median_distances(
    runner: ExperimentRunner, reference: TrainedNetwork, examples: int
) -> dict[str, float]:
    """Return the median l2 and the median linf distance that FMN finds for the reference network.

    They serve as eps of the fixed-budget attacks on all networks of the seed.
    """

    def compute() -> dict[str, float]:
        x, y = measurements.take_first_examples(
            runner.data, examples, runner.backend, reference.model
        )
        medians = {}
        for norm, p in (("l2", 2.0), ("linf", np.inf)):
            delta = fmn(reference.model, x, y, p=p, bounds=runner.data.pixel_bounds()).delta
            rows = runner.backend.to_numpy(delta).reshape(len(x), -1)
            medians[norm] = float(f"{np.median(np.linalg.norm(rows, p, axis=1)):.3g}")
        return medians

    return measurements.load_or_compute(reference.folder, f"sizes-{examples}", compute)


def make_epochs_table(runner: ExperimentRunner, plan: StudyPlan) -> TableContent:
    """Make the table of the accuracy and rho_2 of each method's network after each epoch."""
    rows: list[TableRow] = []
    first_seed: list[HardenedNetwork] = []
    for seed in plan.seeds:
        networks = [
            network
            for network in train_networks(runner, plan, seed)
            if isinstance(network, HardenedNetwork)
        ]
        first_seed = first_seed or networks
        rows += [
            describe_network(runner, network)
            | {"epoch": record.epoch, "accuracy": record.accuracy, "rho_2": record.rho_2}
            for network in networks
            for record in network.report.history
        ]
    curves = {
        "accuracy": _collect_curves(first_seed, "accuracy", lambda record: record.accuracy),
        "rho_2": _collect_curves(first_seed, "rho_2", lambda record: record.rho_2),
    }
    return TableContent(rows, curves)


def _collect_curves(
    networks: Sequence[HardenedNetwork], name: str, get: Callable[[EpochRecord], float | None]
) -> dict[str, Any]:
    """Return {method: curve of the figure that `get` reads from the record of an epoch}.

    A method is left out if it has no epoch, or if the figure is None in an epoch.
    """
    curves = {}
    for network in networks:
        history = network.report.history
        values = [get(record) for record in history]
        if values and None not in values:
            curves[network.method] = {"epoch": [record.epoch for record in history], name: values}
    return curves


def make_cost_table(runner: ExperimentRunner, plan: StudyPlan) -> TableContent:
    """Make the table of what each method costs in time, memory and steps of boundary search."""
    rows: list[TableRow] = []
    first_seed: list[HardenedNetwork] = []
    for seed in plan.seeds:
        reference, scale = prepare_reference(runner, plan, seed)
        hardened = [runner.fine_tune(name, seed, reference, scale) for name in plan.methods]
        # A run without a complete epoch has no costs to report.
        networks = [network for network in hardened if network.report.history]
        first_seed = first_seed or [
            network for network in networks if network.report.history[0].iterations
        ]
        for network in networks:
            report, history = network.report, network.report.history
            rows.append(
                describe_network(runner, network)
                | {
                    "seconds_per_epoch": float(np.median([record.seconds for record in history])),
                    "step_ratio": report.cost.ratio,
                    "mb_beyond_plain": _measure_memory(runner, network, reference.model, scale),
                    "iterations_first": history[0].iterations,
                    "iterations_last": history[-1].iterations,
                    "unfinished_first": history[0].unfinished,
                    "unfinished_last": history[-1].unfinished,
                    "iterations_before": report.before.iterations_mean,
                    "iterations_after": report.after.iterations_mean,
                }
            )
    curves = {
        "iterations": _collect_curves(first_seed, "iterations", lambda record: record.iterations),
        "unfinished": _collect_curves(first_seed, "unfinished", lambda record: record.unfinished),
    }
    return TableContent(rows, curves)


def _measure_memory(
    runner: ExperimentRunner, network: TrainedNetwork, reference: Any, scale: Scale
) -> float | None:
    """Return how many MB more training by the network's method needs than plain training.

    Both train on the same five batches. The run folder of the network stores the result.
    """

    def compute() -> dict[str, Any]:
        batch = runner.experiment.recipe.batch_size
        trial = MemoryTrial(
            framework=runner.backend.name,
            network=runner.description,
            weights=runner.backend.weights(reference),
            x=runner.data.x_train[: 5 * batch],
            y=runner.data.y_train[: 5 * batch],
            batch_size=batch,
            objective=METHODS[network.method].make_objective(scale),
        )
        return {"mb_beyond_plain": measure_extra_memory(trial)}

    stored = measurements.load_or_compute(network.folder, "memory", compute)
    megabytes: float | None = stored["mb_beyond_plain"]
    return megabytes


def make_ablation_table(runner: ExperimentRunner, plan: StudyPlan) -> TableContent:
    """Make the ablation table, in which each row changes one setting of Deep Defense.

    The setting is multiplied by one of the VARIATION_FACTORS. The first row of each seed changes
    nothing.
    """
    rows = []
    variations = [(name, factor) for name in VARIED_SETTINGS for factor in VARIATION_FACTORS]
    for seed in plan.seeds:
        reference, scale = prepare_reference(runner, plan, seed)
        for name, factor in [("nothing", 1.0), *variations]:
            defense, tag = scale.fitted, "deepdefense"
            if name != "nothing":
                defense = replace(defense, **{name: factor * getattr(defense, name)})
                tag = f"deepdefense-{name}-{factor:g}"
            network = runner.fine_tune(
                "deepdefense", seed, reference, scale, tag=tag, objective=defense
            )
            report = network.report
            rows.append(
                describe_network(runner, replace(network, method="deepdefense"))
                | {"changed": name, "factor": factor}
                | {setting: getattr(defense, setting) for setting in VARIED_SETTINGS}
                | {"accuracy": report.after.accuracy, "rho_2": report.after.rho_2}
                | {"stopped": report.stopped, "notes": report.notes}
            )
    return TableContent(rows, {})


def make_layers_table(runner: ExperimentRunner, plan: StudyPlan) -> TableContent:
    """Make the table of Deep Defense in which the penalty trains all layers, or one layer."""
    rows = []
    for seed in plan.seeds:
        reference, scale = prepare_reference(runner, plan, seed)
        for layer in ["all", *list_layers(runner.backend, reference.model)]:
            objective, tag = scale.fitted, "deepdefense"
            if layer != "all":
                objective = OneLayer(**asdict(scale.fitted), layer=layer)
                tag = f"deepdefense-{layer}"
            network = runner.fine_tune(
                "deepdefense", seed, reference, scale, tag=tag, objective=objective
            )
            report = network.report
            rows.append(
                describe_network(runner, replace(network, method="deepdefense"))
                | {"layer": layer, "accuracy": report.after.accuracy, "rho_2": report.after.rho_2}
                | {"before": report.before.rho_2}
            )
    return TableContent(rows, {})


TABLES: Mapping[str, Callable[[ExperimentRunner, StudyPlan], TableContent]] = {
    "table1": make_table1,
    "table2": make_table2,
    "epochs": make_epochs_table,
    "ablation": make_ablation_table,
    "layers": make_layers_table,
    "cost": make_cost_table,
}

# The tables that compare variations of the method "deepdefense". They ignore `StudyPlan.methods`.
VARIATIONS = ("ablation", "layers")
