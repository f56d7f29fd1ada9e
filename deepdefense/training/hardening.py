"""The whole job: measure a trained network, fine-tune it with Deep Defense, measure it again."""

from __future__ import annotations

import math
import statistics
import time
from dataclasses import replace
from itertools import islice
from typing import Any, NamedTuple

from deepdefense.defenses.objective import Objective
from deepdefense.errors import InputError
from deepdefense.evaluation.dataset import Dataset
from deepdefense.evaluation.protocol import RHO_ATTACK
from deepdefense.evaluation.provenance import NetworkInfo, describe_data, describe_environment
from deepdefense.evaluation.rho import Measurement, Summary, measure_rho, summarize_in_norm
from deepdefense.seam.progress import Watcher
from deepdefense.seam.training import Trainer, TrainingBackend
from deepdefense.seam.validation import call_model, is_softmax
from deepdefense.training.augmentation import check_images
from deepdefense.training.epoch import draw_batches, take_step
from deepdefense.training.guard import Guard
from deepdefense.training.loop import Checkpoint, run_training
from deepdefense.training.monitor import Monitor
from deepdefense.training.recipe import LEAST_CLIP, Recipe
from deepdefense.training.report import Cost, CurveSample, HardeningReport

__all__ = [
    "HardeningOutcome",
    "check_network",
    "count_weights",
    "harden_network",
    "prepare_monitor",
]

COST_PAIRS = 5


class HardeningOutcome(NamedTuple):
    """The hardened network, its report, and the per-example measurements behind both sides."""

    model: Any
    report: HardeningReport
    before: Measurement
    after: Measurement


class _NetworkMeasurement(NamedTuple):
    """One network's measurement with p = 2, and its summary."""

    found: Measurement
    report: Summary


def prepare_monitor(
    backend: TrainingBackend, model: Any, data: Dataset, recipe: Recipe, guard: Guard
) -> Monitor:
    """All that must fit, before anything is written; then what training is watched by."""
    check_network(backend, model, data)
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
    """Measure the network, fine-tune a copy of it by the defense, and measure that."""
    data, p = monitor.data, float(getattr(defense, "p", 2))
    before = _measure_network(backend, model, data, p, "before", watcher)
    warnings = _list_warnings(before.report, data)
    for line in warnings:
        watcher.say(f"warning: {line}")
    trainer = recipe.make_trainer(backend, backend.copy(model))
    cost, gradient = _measure_cost(backend, trainer, data, defense, recipe)
    if recipe.clip == "auto":
        usable = LEAST_CLIP <= gradient < math.inf
        if not usable:
            line = f"no clip: the gradient before training has no size to go by ({gradient:g})"
            warnings = (*warnings, line)
            watcher.say(f"warning: {line}")
        recipe = replace(recipe, clip=float(f"{gradient:.3g}") if usable else None)
    steps = recipe.epochs * -(-len(monitor.training_rows) // recipe.batch_size)
    watcher.say(
        f"a hardening step takes {cost.ratio:.1f} times a plain one: "
        f"about {steps * cost.hardening_step_seconds:.0f} s for {recipe.epochs} epochs"
    )
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
    hardened = trainer.model
    after = _measure_network(backend, hardened, data, p, "after", watcher)
    report = HardeningReport(
        backend=backend.name,
        network=network,
        data=tuple(describe_data(data).items()),
        defense=defense,
        recipe=recipe,
        guard=guard,
        environment=tuple(
            describe_environment(backend.name, backend.asarray(data.x_test[:1], hardened)).items()
        ),
        before=before.report,
        after=after.report,
        history=progress.history,
        sample=CurveSample(
            len(monitor.curve_rows), float(before.found.rho[monitor.curve_rows].mean())
        ),
        cost=cost,
        stopped=progress.stopped,
        warnings=warnings,
        notes=progress.notes,
    )
    return HardeningOutcome(hardened, report, before.found, after.found)


def _measure_network(
    backend: TrainingBackend, model: Any, data: Dataset, p: float, when: str, watcher: Watcher
) -> _NetworkMeasurement:
    watcher.begin(f"evaluate {when}", len(data.x_test))

    def found(order: float) -> Measurement:
        return measure_rho(
            model,
            data.x_test,
            data.y_test,
            backend=backend,
            p=order,
            progress=watcher.advance,
            **RHO_ATTACK,
        )

    report, euclidean = summarize_in_norm(p, found)
    watcher.say(
        f"{when}: accuracy {report.accuracy:.2%}, rho_2 {report.rho_2:.4f} "
        f"on {report.n:,} held-out examples"
    )
    return _NetworkMeasurement(euclidean, report)


def count_weights(backend: TrainingBackend, model: Any) -> int:
    """How many numbers a model's parameters and statistics are."""
    return sum(value.size for value in backend.weights(model).values())


def check_network(backend: TrainingBackend, model: Any, data: Dataset) -> None:
    """One forward pass, so that a network that does not fit the data is told in one line.

    So is a model that training could not change.
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
    shape = logits.shape
    if len(shape) != 2 or shape[1] < data.classes:
        raise InputError(
            f"the network must return logits [b k] for {data.classes} classes, "
            f"it returned shape {list(shape)} for a batch of {len(batch)}"
        )
    if is_softmax(logits):
        raise InputError(
            "the network must return logits, it returned probabilities (no output is negative, "
            "and they sum to 1): leave the softmax out"
        )


def _list_warnings(before: Summary, data: Dataset) -> tuple[str, ...]:
    found = []
    if before.accuracy < 0.1 + 0.9 / data.classes:  # a tenth of the way from chance to perfect
        found.append(
            f"before hardening the network is right on {before.accuracy:.1%} only: were its "
            "weights trained on this data, preprocessed in this way?"
        )
    if before.success < 0.99:
        found.append(
            f"DeepFool succeeded on {before.success:.1%} of the examples only, so rho says little"
        )
    if before.unmeasured:
        found.append(f"{before.unmeasured} examples have no rho (all zero, or not finite)")
    return tuple(found)


def _measure_cost(
    backend: TrainingBackend, trainer: Trainer, data: Dataset, defense: Objective, recipe: Recipe
) -> tuple[Cost, float]:
    """Time plain and hardening steps in turn, at a learning rate of 0; and the latter's gradient.

    The trainer is then what it was; the gradient is the median of the steps' 2-norms.
    """
    start = trainer.state()
    seconds: tuple[list[float], list[float]] = ([], [])
    gradients: list[float] = []
    with backend.fixed_seed(recipe.seed):
        rows = draw_batches(len(data.x_train), recipe.batch_size, recipe.seed, 0)
        for chosen in islice(rows, COST_PAIRS + 1):
            x, y = data.x_train[chosen], data.y_train[chosen]
            for objective, times in zip((Objective(), defense), seconds, strict=True):
                began = time.perf_counter()
                taken = take_step(backend, trainer, objective, x, y, lr=0.0)
                times.append(time.perf_counter() - began)
                if taken is not None and objective is defense:
                    gradients.append(taken.gradient)
    trainer.restore(start)
    # The first warms up, if there is another.
    plain_seconds, hard_seconds = (statistics.median(times[1:] or times) for times in seconds)
    cost = Cost(plain_seconds, hard_seconds, hard_seconds / plain_seconds)
    return cost, statistics.median(gradients) if gradients else math.inf
