"""Harden a trained network: measure it, fine-tune a copy with a defence, and measure the copy."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from deepdefense.defenses.objective import Objective
from deepdefense.errors import InputError
from deepdefense.evaluation.dataset import Dataset
from deepdefense.evaluation.feature_scales import describe_unequal_scales
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
from deepdefense.seam.validation import call_model, is_softmax
from deepdefense.training.augmentation import check_images
from deepdefense.training.cost import Cost, measure_cost
from deepdefense.training.guard import Guard
from deepdefense.training.held_out_distances import HeldOutDistances
from deepdefense.training.loop import Checkpoint, run_training
from deepdefense.training.monitor import Monitor
from deepdefense.training.recipe import LEAST_CLIP, Recipe
from deepdefense.training.report import CurveSample, HardeningReport

__all__ = [
    "HardeningOutcome",
    "check_network",
    "count_logits",
    "count_weights",
    "harden_network",
    "prepare_monitor",
]


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
    return Monitor.draw(backend, data, recipe.seed, RHO_ATTACK, guard.share)


def harden_network(
    backend: TrainingBackend,
    model: Any,
    monitor: Monitor,
    *,
    network: NetworkInfo,
    defense: Objective,
    recipe: Recipe,
    guard: Guard,
    checkpoint: Checkpoint | None,
    watcher: Watcher,
) -> HardeningOutcome:
    """Measure the network, fine-tune a copy of it with the defence, and measure the copy.

    `network` describes the original network in the report. If the recipe's gradient clip is "auto",
    the report has the clip that was used: a number, or None for no clipping.
    """
    data = monitor.data
    p = float(getattr(defense, "p", 2))  # the report has rho in the norm of the defence too
    warnings: list[str] = []

    def warn(line: str) -> None:
        warnings.append(line)
        watcher.say(f"warning: {line}")

    before = _measure_network(backend, model, data, p, "before", watcher)
    for line in _list_warnings(before.summary, data):
        warn(line)
    held_out = HeldOutDistances.choose(monitor, model, defense, watcher)
    distances = held_out.measure(model, "before")
    trainer = recipe.make_trainer(backend, backend.copy(model))
    cost, gradient = measure_cost(backend, trainer, data, defense, recipe)
    if recipe.clip == "auto":
        recipe = replace(recipe, clip=_choose_clip(gradient, warn))
    _announce_cost(cost, recipe, len(monitor.training_rows), watcher)
    progress = run_training(
        "harden",
        trainer,
        monitor,
        recipe=recipe,
        objective=defense,
        guard=guard,
        checkpoint=checkpoint,
        watcher=watcher,
    )
    after = _measure_network(backend, trainer.model, data, p, "after", watcher)
    verdict = held_out.judge(
        distances,
        held_out.measure(trainer.model, "after"),
        before.euclidean.correct,
        after.euclidean.correct,
    )
    curve_rho = float(before.euclidean.rho[monitor.curve_rows].mean())
    # `describe_environment` reads the device from an array, so place one on the model's device.
    one_example = backend.asarray(data.x_test[:1], trainer.model)
    report = HardeningReport(
        backend=backend.name,
        network=network,
        data=FrozenDict(describe_data(data)),
        defense=defense,
        recipe=recipe,
        guard=guard,
        environment=FrozenDict(describe_environment(backend.name, one_example)),
        verdict=verdict,
        before=before.summary,
        after=after.summary,
        history=progress.history,
        sample=CurveSample(len(monitor.curve_rows), curve_rho),
        cost=cost,
        stopped=progress.stopped,
        warnings=tuple(warnings),
        notes=progress.notes,
    )
    return HardeningOutcome(trainer.model, report, before.euclidean, after.euclidean)


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


def _choose_clip(gradient: float, warn: Callable[[str], None]) -> float | None:
    """Return the gradient clip to use in place of "auto".

    This is `gradient`, the median 2-norm of the gradients before training, rounded to three digits.
    If `gradient` is less than `LEAST_CLIP` or not finite, return None (no clipping) and warn.
    """
    if not LEAST_CLIP <= gradient < math.inf:
        warn(f"no clip: the gradient before training has no size to go by ({gradient:g})")
        return None
    return float(f"{gradient:.3g}")


def _announce_cost(cost: Cost, recipe: Recipe, examples: int, watcher: Watcher) -> None:
    """Report the relative cost of a hardening step, and the expected duration of training."""
    seconds = recipe.count_steps(examples, recipe.periods) * cost.hardening_step_seconds
    steps = recipe.optimizer_steps
    length = f"{recipe.epochs} epochs" if steps is None else f"{steps:,} steps"
    watcher.say(
        f"a hardening step takes {cost.ratio:.1f} times a plain one: "
        f"about {seconds:.0f} s for {length}"
    )


def count_weights(backend: TrainingBackend, model: Any) -> int:
    """Return the number of elements in all parameters and batch-norm statistics of a model."""
    return sum(value.size for value in backend.weights(model).values())


def check_network(backend: TrainingBackend, model: Any, data: Dataset) -> int:
    """Return the number of the model's logits, which may be larger than the number of classes.

    Raises `InputError` unless the model has parameters, accepts the data and returns a logit for
    each class.
    """
    logits = count_logits(backend, model, data)
    if logits < data.classes:
        raise InputError(
            f"the network must return logits [b k] for {data.classes} classes, it returned "
            f"{logits} for each example, but the labels go up to {data.classes - 1}: relabel, or "
            "give a network with more logits"
        )
    return logits


def count_logits(backend: TrainingBackend, model: Any, data: Dataset) -> int:
    """Return the number k of the logits [b k] that the model returns for training examples.

    Raises `InputError` unless the model has parameters, accepts the data and returns logits.
    """
    if not count_weights(backend, model):
        raise InputError(
            f"the model has no parameters to train (a {type(model).__name__} that {backend.name} "
            "sees no weights in): give the module, or in JAX a pytree with them as its leaves, say "
            "jax.tree_util.Partial(apply, params) or equinox.filter_vmap(module)"
        )
    batch = backend.asarray(data.x_train[:2], model)
    with backend.inference(model) as f:
        logits = backend.to_numpy(call_model(f, batch))
    if logits.ndim != 2:
        raise InputError(
            f"the network must return logits [b k] for {data.classes} classes, "
            f"it returned shape {list(logits.shape)} for a batch of {len(batch)}"
        )
    if is_softmax(logits):
        raise InputError(
            "the network must return logits, it returned probabilities (no output is negative, "
            "and they sum to 1): leave the softmax out"
        )
    return int(logits.shape[1])


def _list_warnings(before: Summary, data: Dataset) -> list[str]:
    """Return a warning for each reason to doubt the measurement of the network before training."""
    warnings = []
    if missing := data.name_missing(np.arange(data.classes)):
        warnings.append(
            f"the network has {data.classes} classes, of which no training example has {missing}: "
            "hardening may change what it makes of them"
        )
    # Guessing has the accuracy a = 1 / classes. Warn if accuracy is below a + 0.1 * (1 - a).
    if before.accuracy < 0.1 + 0.9 / data.classes:
        warnings.append(
            f"before hardening the network is right on {before.accuracy:.1%} only: were its "
            "weights trained on this data, preprocessed in this way?"
        )
    if before.success < 0.99:
        warnings.append(
            f"DeepFool succeeded on {before.success:.1%} of the examples only, so rho says little"
        )
    if unequal := describe_unequal_scales(data):
        warnings.append(unequal)
    if before.unmeasured:
        warnings.append(f"{before.unmeasured} examples have no rho (all zero, or not finite)")
    return warnings
