"""Harden a trained network: measure it, fine-tune a copy with a defence, and measure the copy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from deepdefense.defenses.deep_defense import DeepDefense
from deepdefense.defenses.objective import Objective
from deepdefense.errors import InputError
from deepdefense.evaluation.dataset import Dataset
from deepdefense.evaluation.provenance import NetworkInfo, describe_data, describe_environment
from deepdefense.evaluation.rho_protocol import (
    RHO_ATTACK,
    Measurement,
    Summary,
    measure_rho,
    summarize_in_norm,
)
from deepdefense.seam.frozen_dict import FrozenDict
from deepdefense.seam.progress import Watcher
from deepdefense.seam.training_contract import TrainingBackend
from deepdefense.training.augmentation import check_images
from deepdefense.training.fit import Fit, fit_once
from deepdefense.training.guard import Guard
from deepdefense.training.held_out_distances import HeldOutDistances
from deepdefense.training.loop import Checkpoint
from deepdefense.training.monitor import Monitor
from deepdefense.training.network_checks import check_network, list_warnings
from deepdefense.training.recipe import Recipe
from deepdefense.training.report import CurveSample, HardeningReport
from deepdefense.training.staged_fit import fit_in_stages

__all__ = ["HardeningOutcome", "harden_network", "prepare_monitor"]


class HardeningOutcome(NamedTuple):
    """The result of `harden_network`: the hardened network, the report, and measurements.

    `before` and `after` measure the original and the hardened network on the held-out examples.
    Each has one rho for each example: the 2-norm of DeepFool's perturbation, divided by the 2-norm
    of the example.
    """

    model: Any
    report: HardeningReport
    before: Measurement
    after: Measurement


class _NetworkMeasurement(NamedTuple):
    """The measurements of one network on the held-out examples.

    `euclidean` has rho in the 2-norm for each example. `summary` has the mean and the median of rho
    in the 2-norm and, if the `p` of the defence is not 2, also in the p-norm.
    """

    euclidean: Measurement
    summary: Summary


def prepare_monitor(
    backend: TrainingBackend, model: Any, data: Dataset, recipe: Recipe, guard: Guard
) -> Monitor:
    """Return the monitor, which holds the examples to train on and to evaluate on.

    Raises `InputError` if network, data and recipe do not fit together.
    """
    data = data.with_classes(check_network(backend, model, data))
    check_images(data.x_train.shape[1:], **recipe.augmentation)
    return Monitor.draw(
        backend, data, recipe.seed, RHO_ATTACK, 0.0 if recipe.stages else guard.share
    )


def harden_network(
    backend: TrainingBackend,
    model: Any,
    monitor: Monitor,
    *,
    network: NetworkInfo,
    defense: Objective,
    recipe: Recipe,
    guard: Guard,
    validation: tuple[Any, Any] | None,
    checkpoint: Checkpoint | None,
    watcher: Watcher,
) -> HardeningOutcome:
    """Measure the network, fine-tune a copy of it with the defence, and measure the copy.

    `network` describes the original network in the report. `validation` are examples and labels by
    which `recipe.stages` are judged; without them, a rehearsal judges. If the recipe's gradient
    clip is "auto", the report has the clip that was used: a number, or None for no clipping.
    """
    _check_stages(defense, recipe, guard, validation)
    data = monitor.data
    p = float(getattr(defense, "p", 2))  # the report has rho in the norm of the defence too
    warnings: list[str] = []

    def warn(line: str) -> None:
        warnings.append(line)
        watcher.say(f"warning: {line}")

    before = _measure_network(backend, model, data, p, "before", watcher)
    for line in list_warnings(before.summary, data):
        warn(line)
    held_out = HeldOutDistances.choose(monitor, model, defense, watcher)
    distances = held_out.measure(model, "before")
    options: dict[str, Any] = {"recipe": recipe, "guard": guard, "checkpoint": checkpoint}
    options |= {"watcher": watcher, "warn": warn}
    if recipe.stages:
        options["validation"] = validation
    fit_network: Callable[..., Fit] = fit_in_stages if recipe.stages else fit_once
    fit = fit_network(backend, model, monitor, defense=defense, **options)
    after = _measure_network(backend, fit.model, data, p, "after", watcher)
    verdict = held_out.judge(
        distances,
        held_out.measure(fit.model, "after"),
        before.euclidean.correct,
        after.euclidean.correct,
    )
    curve_rho = float(before.euclidean.rho[monitor.curve_rows].mean())
    # `describe_environment` reads the device from an array, so place one on the model's device.
    one_example = backend.asarray(data.x_test[:1], fit.model)
    report = HardeningReport(
        backend=backend.name,
        network=network,
        data=FrozenDict(describe_data(data)),
        defense=fit.defense,
        recipe=fit.recipe,
        guard=guard,
        environment=FrozenDict(describe_environment(backend.name, one_example)),
        verdict=verdict,
        before=before.summary,
        after=after.summary,
        history=fit.history,
        sample=CurveSample(len(monitor.curve_rows), curve_rho),
        cost=fit.cost,
        stopped=fit.stopped,
        warnings=tuple(warnings),
        notes=fit.notes,
        rehearsal=fit.rehearsal,
        no_gain=fit.no_gain,
    )
    return HardeningOutcome(fit.model, report, before.euclidean, after.euclidean)


def _check_stages(
    defense: Objective, recipe: Recipe, guard: Guard, validation: tuple[Any, Any] | None
) -> None:
    """Raise `InputError` unless these settings go with the stages of the recipe, or with none."""
    if not recipe.stages:
        if validation is not None:
            raise InputError(
                "validation examples judge stages, and this recipe has none: leave out recipe and "
                "defense, or give Recipe.staged(...)"
            )
        return
    if recipe.optimizer_steps is None:
        raise InputError(
            "a stage needs a number of optimizer steps: give optimizer_steps, or take "
            "Recipe.staged(...), which chooses it"
        )
    if guard.patience is not None:
        raise InputError(
            "patience ends a single run, and stages end by themselves: leave it out, or give a "
            "recipe without stages, say Recipe.paper()"
        )
    if not isinstance(defense, DeepDefense):
        raise InputError(
            f"stages find c and d of a DeepDefense, and {type(defense).__name__} has none: give a "
            "recipe without stages, say Recipe.paper()"
        )


def _measure_network(
    backend: TrainingBackend, model: Any, data: Dataset, p: float, when: str, watcher: Watcher
) -> _NetworkMeasurement:
    """Measure accuracy, and rho in the 2-norm and in the p-norm, on the held-out examples.

    `when`, "before" or "after" training, labels the progress messages.
    """
    watcher.begin(f"evaluate {when}", len(data.x_test))

    def measure_in_norm(order: float) -> Measurement:
        return measure_rho(
            model,
            data.x_test,
            data.y_test,
            backend=backend,
            p=order,
            progress=watcher.advance,
            **RHO_ATTACK,
        )

    summary, euclidean = summarize_in_norm(p, measure_in_norm)
    watcher.say(
        f"{when}: accuracy {summary.accuracy:.2%}, rho_2 {summary.rho_2:.4f} "
        f"on {summary.n:,} held-out examples"
    )
    return _NetworkMeasurement(euclidean, summary)
