"""The whole job: measure a trained network, fine-tune it with Deep Defense, measure it again."""

from __future__ import annotations

import math
import statistics
import time
from dataclasses import asdict, replace
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from deepdefense.assessor import Assessor, Guard
from deepdefense.augmentation import check_images
from deepdefense.backend import backend_for, current_backend, to_host
from deepdefense.calibration import fitted
from deepdefense.checks import are_softmax, check_kind, check_pair, check_takes
from deepdefense.data import Dataset, fingerprint, from_arrays
from deepdefense.defense import DeepDefense
from deepdefense.errors import InputError
from deepdefense.evaluation.rho import Measurement, Summary, in_norm, measure
from deepdefense.objective import Objective
from deepdefense.provenance import NetworkInfo, describe, environment
from deepdefense.results import (
    ATTACK,
    Cost,
    HardeningReport,
    Sample,
    method,
    write_results,
)
from deepdefense.runs import RunFolder
from deepdefense.stages import run_stage
from deepdefense.training import (
    LEAST_CLIP,
    Recipe,
    Trainer,
    TrainingBackend,
    batches,
    take_step,
    training_backend,
)
from deepdefense.watcher import Watcher

__all__ = ["check_fit", "checked", "count_weights", "harden", "harden_on"]

COST_PAIRS = 5


class _Measured(NamedTuple):
    """One network's measurement with p = 2, and its summary."""

    found: Measurement
    report: Summary


def harden(
    model: Any,
    train: tuple[Any, Any],
    test: tuple[Any, Any],
    *,
    defense: Objective | None = None,
    recipe: Recipe | None = None,
    guard: Guard | None = None,
    out: str | Path | None = None,
    resume: bool = False,
    watcher: Watcher | None = None,
) -> tuple[Any, HardeningReport]:
    """Fine-tune a trained classifier to be robust; a hardened copy, and a report on both.

    Args:
        model: a native model of a framework (say `torch.nn.Module`), trained; it is left as it is.
        train: examples [n ...] and labels [n] to fine-tune on, NumPy's or the framework's.
        test: examples and labels held out, for the report alone: nothing is chosen by them.
        defense: what to train against: a `DeepDefense`, or one of `deepdefense.baselines`. Unless
            given, `calibrate` fits the penalty to the network.
        recipe: how to train; `Recipe()`, the paper's, unless given.
        guard: how far accuracy may fall, and when to end; `Guard()` unless given.
        out: a new folder for report.json, report.html and hardened.safetensors (needs the extra
            ``deepdefense[cli]``). A run that is interrupted keeps its last complete epoch there.
        resume: go on with the run in `out`, to the result it would have had.
        watcher: hears of the progress.

    An epoch whose loss or gradient is not finite, or that costs more accuracy than the guard
    allows, is taken back and tried again at half the learning rate (`report.notes`). Where that
    does not help, training ends at the last good epoch; `report.stopped` then says why.

    Raises:
        InputError: the data or settings cannot be used, or `out` is taken.
    """
    (x_train, y_train), (x_test, y_test) = check_pair("train", train), check_pair("test", test)
    check_kind("defense", defense, Objective)
    check_kind("recipe", recipe, Recipe)
    check_kind("guard", guard, Guard)
    chosen = current_backend()
    name = (chosen or backend_for(model, x_train)).name
    backend = training_backend(name)
    data = from_arrays(*map(to_host, (x_train, y_train, x_test, y_test)))
    recipe, guard = recipe or Recipe(), guard or Guard()
    assessor = checked(backend, model, data, recipe, guard)
    run = None
    if out is not None:
        settings = {
            "data": data.fingerprint(),
            "weights": fingerprint(backend.weights(model).values()),
            "defense": None if defense is None else method(defense),
            "recipe": asdict(recipe),
            "guard": asdict(guard),
        }
        begin = RunFolder.reopen if resume else RunFolder.create
        run = begin(Path(out), settings)
    elif resume:
        raise InputError("resume needs the folder of the run: out")
    if defense is None:
        defense = fitted(backend, model, data.x_train, data.y_train, DeepDefense(), recipe.seed)
    network = NetworkInfo(type(model).__name__, count_weights(backend, model), "given")
    return harden_on(
        backend,
        model,
        assessor,
        network=network,
        defense=defense,
        recipe=recipe,
        guard=guard,
        run=run,
        watcher=watcher or Watcher(),
    )


def checked(
    backend: TrainingBackend, model: Any, data: Dataset, recipe: Recipe, guard: Guard
) -> Assessor:
    """All that must fit, before anything is written; then what training is watched by."""
    check_fit(backend, model, data)
    check_images(data.x_train.shape[1:], **recipe.augmentation)
    return Assessor.draw(backend, data, recipe.seed, ATTACK, guard.share)


def harden_on(
    backend: TrainingBackend,
    model: Any,
    assessor: Assessor,
    *,
    network: NetworkInfo,
    defense: Objective,
    recipe: Recipe,
    guard: Guard,
    run: RunFolder | None,
    watcher: Watcher,
) -> tuple[Any, HardeningReport]:
    """`harden`, once everything is in hand: measure, train, measure, write."""
    data, p = assessor.data, float(getattr(defense, "p", 2))
    before = _measured(backend, model, data, p, "before", watcher)
    warnings = _warnings(before.report, data)
    for line in warnings:
        watcher.say(f"warning: {line}")
    trainer = backend.trainer(backend.copy(model), recipe)
    cost, gradient = _cost(backend, trainer, data, defense, recipe)
    if recipe.clip == "auto":
        usable = LEAST_CLIP <= gradient < math.inf
        if not usable:
            line = f"no clip: the gradient before training has no size to go by ({gradient:g})"
            warnings = (*warnings, line)
            watcher.say(f"warning: {line}")
        recipe = replace(recipe, clip=float(f"{gradient:.3g}") if usable else None)
    steps = recipe.epochs * -(-len(assessor.trained) // recipe.batch_size)
    watcher.say(
        f"a hardening step takes {cost.ratio:.1f} times a plain one: "
        f"about {steps * cost.hardening_step_seconds:.0f} s for {recipe.epochs} epochs"
    )
    progress = run_stage(
        "harden",
        trainer,
        assessor,
        recipe=recipe,
        objective=defense,
        guard=guard,
        run=run,
        watcher=watcher,
    )
    hardened = trainer.model
    after = _measured(backend, hardened, data, p, "after", watcher)
    report = HardeningReport(
        backend=backend.name,
        network=network,
        data=tuple(describe(data).items()),
        defense=defense,
        recipe=recipe,
        guard=guard,
        environment=tuple(
            environment(backend.name, backend.asarray(data.x_test[:1], hardened)).items()
        ),
        before=before.report,
        after=after.report,
        history=progress.history,
        sample=Sample(len(assessor.curve), float(before.found.rho[assessor.curve].mean())),
        cost=cost,
        stopped=progress.stopped,
        warnings=warnings,
        notes=progress.notes,
    )
    if run:
        write_results(run, report, backend, model, hardened, data, before.found, after.found)
    return hardened, report


def _measured(
    backend: TrainingBackend, model: Any, data: Dataset, p: float, when: str, watcher: Watcher
) -> _Measured:
    watcher.begin(f"evaluate {when}", len(data.x_test))

    def found(order: float) -> Measurement:
        return measure(
            model,
            data.x_test,
            data.y_test,
            backend=backend,
            p=order,
            progress=watcher.advance,
            **ATTACK,
        )

    report, euclidean = in_norm(p, found)
    watcher.say(
        f"{when}: accuracy {report.accuracy:.2%}, rho_2 {report.rho_2:.4f} "
        f"on {report.n:,} held-out examples"
    )
    return _Measured(euclidean, report)


def count_weights(backend: TrainingBackend, model: Any) -> int:
    """How many numbers a model's parameters and statistics are."""
    return sum(value.size for value in backend.weights(model).values())


def check_fit(backend: TrainingBackend, model: Any, data: Dataset) -> None:
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
        logits = backend.to_numpy(check_takes(f, batch))
    shape = logits.shape
    if len(shape) != 2 or shape[1] < data.classes:
        raise InputError(
            f"the network must return logits [b k] for {data.classes} classes, "
            f"it returned shape {list(shape)} for a batch of {len(batch)}"
        )
    if are_softmax(logits):
        raise InputError(
            "the network must return logits, it returned probabilities (no output is negative, "
            "and they sum to 1): leave the softmax out"
        )


def _warnings(before: Summary, data: Dataset) -> tuple[str, ...]:
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


def _cost(
    backend: TrainingBackend, trainer: Trainer, data: Dataset, defense: Objective, recipe: Recipe
) -> tuple[Cost, float]:
    """Time plain and hardening steps in turn, at a learning rate of 0; and the latter's gradient.

    The trainer is then what it was; the gradient is the median of the steps' 2-norms.
    """
    start = trainer.state()
    seconds: tuple[list[float], list[float]] = ([], [])
    gradients: list[float] = []
    with backend.seeded(recipe.seed):
        rows = batches(len(data.x_train), recipe.batch_size, recipe.seed, 0)
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
