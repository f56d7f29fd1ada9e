"""Fine-tune a classifier to be robust: `dd.harden` and the command `deepdefense harden`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from deepdefense.app.jobs.defaults import CALIBRATED_SETTINGS
from deepdefense.app.jobs.job import Job, open_job
from deepdefense.app.jobs.settings import HARDEN, choose_fields
from deepdefense.app.run_folder import REFERENCE_FILE, RunFolder
from deepdefense.app.threads import fit_training_threads
from deepdefense.app.training_in_folder import (
    harden_in_folder,
    save_preprocessing,
    train_reference,
)
from deepdefense.defenses.calibration import fit_penalty
from deepdefense.defenses.deep_defense import DeepDefense
from deepdefense.defenses.objective import Objective
from deepdefense.errors import InputError
from deepdefense.evaluation.dataset import DataError, Dataset, dataset_from_arrays, fingerprint
from deepdefense.evaluation.provenance import NetworkInfo
from deepdefense.seam.choosing import backend_for, current_backend, to_host
from deepdefense.seam.progress import Watcher
from deepdefense.seam.settings import list_settings
from deepdefense.seam.training_contract import training_backend
from deepdefense.seam.validation import check_kind, check_pair
from deepdefense.training.guard import Guard
from deepdefense.training.hardening import prepare_monitor
from deepdefense.training.network_checks import count_weights
from deepdefense.training.recipe import Recipe
from deepdefense.training.report import HardeningReport, describe_objective
from deepdefense.training.staged_fit import STAGED_PENALTY

__all__ = ["harden", "run_harden"]

# If no weights are given, the undefended reference network is trained with these settings, for at
# least REFERENCE_EPOCHS epochs and at least REFERENCE_STEPS optimizer steps.
REFERENCE_EPOCHS, REFERENCE_STEPS = 10, 1000
REFERENCE_LR, REFERENCE_DECAY = 1e-3, 0.1


def harden(
    model: Any,
    train: tuple[Any, Any],
    test: tuple[Any, Any],
    *,
    defense: Objective | None = None,
    recipe: Recipe | None = None,
    guard: Guard | None = None,
    validation: tuple[Any, Any] | None = None,
    out: str | Path | None = None,
    resume: bool = False,
    watcher: Watcher | None = None,
) -> tuple[Any, HardeningReport]:
    """Fine-tune a trained classifier to be robust; return a hardened copy and a report.

    The report compares the classifier before and after hardening.

    With neither `defense` nor `recipe`, the settings are found: the penalty is strengthened in
    stages, as long as accuracy holds on examples that were not trained on. If no stage brings a
    gain, the classifier is returned as it is, and `report.no_gain` says why.

    An epoch is rejected if the loss or the gradient is not finite, or if accuracy falls by more
    than `guard` allows. Training then repeats the epoch from the weights of the last good epoch at
    half the learning rate. If the last retry is rejected too, training ends with the weights of
    the last good epoch, and `report.stopped` says why.

    Args:
        model: a trained model of a framework, such as a `torch.nn.Module`. It is not changed.
        train: the examples [n ...] and labels [n] to fine-tune on, as arrays of NumPy or of the
            model's framework.
        test: held-out examples and labels, on which the report's measurements are made. They
            influence neither training nor the choice of weights.
        defense: the training objective: a `DeepDefense`, or one of `deepdefense.baselines`. None: a
            `DeepDefense` whose c and d are fitted to the network, as `calibrate` does.
        recipe: the settings of training. None: `Recipe.staged`, or with a `defense` the settings of
            the paper, `Recipe.paper()`.
        guard: the limits that reject an epoch or end training. None: `Guard()`. With stages,
            `max_accuracy_drop` is the largest drop of accuracy that the stages may cause. By
            default, it is one standard error of the accuracy, and at most one point.
        validation: examples and labels that the network has never seen, to judge the stages by.
            None: some training examples are set aside, and a network of the same architecture
            rehearses the stages on the others, from shuffled weights.
        out: a new folder, into which report.json, report.html and hardened.safetensors are written.
            Writing these files needs the extra ``deepdefense[cli]``.
        resume: continue the interrupted run in `out`. The result equals that of an uninterrupted
            run.
        watcher: receives the progress.

    Raises:
        InputError: the data or the settings cannot be used, or the folder `out` is not empty.
    """
    (x_train, y_train), (x_test, y_test) = check_pair("train", train), check_pair("test", test)
    check_kind("defense", defense, Objective)
    check_kind("recipe", recipe, Recipe)
    check_kind("guard", guard, Guard)
    host_validation = None
    if validation is not None:
        host_validation = _check_validation(validation, to_host(x_train), to_host(y_train))
    backend = training_backend((current_backend() or backend_for(model, x_train)).name)
    data = dataset_from_arrays(*map(to_host, (x_train, y_train, x_test, y_test)))
    if recipe is None:
        recipe = Recipe.staged(len(y_train)) if defense is None else Recipe.paper()
    guard = guard or Guard()
    monitor = prepare_monitor(backend, model, data, recipe, guard)
    run = None
    if out is not None:
        settings = {
            "command": "harden",
            "data": data.fingerprint(),
            "weights": fingerprint(backend.weights(model).values()),
            "defense": None if defense is None else describe_objective(defense),
            "recipe": asdict(recipe),
            "guard": asdict(guard),
            "validation": host_validation and fingerprint(host_validation),
        }
        run = (RunFolder.resume if resume else RunFolder.create)(Path(out), settings)
    elif resume:
        raise InputError("resume needs the folder of the run: out")
    watcher = watcher or Watcher()
    with fit_training_threads(backend, model, data, recipe, run=run, watcher=watcher):
        if defense is None:
            defense = (
                STAGED_PENALTY
                if recipe.stages
                else fit_penalty(
                    backend, model, data.x_train, data.y_train, DeepDefense(), recipe.seed
                )
            )
        return harden_in_folder(
            backend,
            model,
            monitor,
            network=NetworkInfo(type(model).__name__, count_weights(backend, model), "given"),
            defense=defense,
            recipe=recipe,
            guard=guard,
            validation=host_validation,
            run=run,
            watcher=watcher,
        )


def _check_validation(validation: tuple[Any, Any], x_train: Any, y_train: Any) -> tuple[Any, Any]:
    """Return the validation examples and labels in host memory, checked."""
    x, y = map(to_host, check_pair("validation", validation))
    data = dataset_from_arrays(x_train, y_train, x, y)
    return data.x_test, data.y_test


def run_harden(
    options: Mapping[str, Any], *, out: Path | None, resume: bool, watcher: Watcher
) -> tuple[HardeningReport, Path]:
    """Run `deepdefense harden` with these options; return the report and the run folder."""
    with open_job("harden", HARDEN, options, out=out, resume=resume, watcher=watcher) as job:
        settings, backend = job.settings, job.backend
        steepness = {
            name: settings[name] for name in CALIBRATED_SETTINGS if settings[name] is not None
        }
        others = {
            name: value for name, value in settings.items() if name not in CALIBRATED_SETTINGS
        }
        defense = choose_fields(DeepDefense, {**others, **steepness, "p": float(settings["p"])})
        guard, data = choose_fields(Guard, settings), job.load_data()
        recipe = _choose_recipe(settings, len(data.x_train))
        watcher.say(
            f"{data.name}: {len(data.x_train):,} training and {len(data.x_test):,} test examples "
            f"{list(data.x_train.shape[1:])}, {len(data.labels)} classes"
        )
        if settings["bounded"]:
            if data.pixel_bounds() is None:
                raise InputError(
                    f"{data.name} has no range of pixels to keep within: leave out bounded"
                )
            defense = replace(defense, bounds=data.pixel_bounds())
        origin = settings["weights"]
        model = job.load_network(data, origin)
        data = job.match_labels(data, model)
        if origin is None:
            _check_classes(data)
        monitor = prepare_monitor(backend, model, data, recipe, guard)
        run = job.open_folder(
            data,
            [model],
            "the data or the initial weights of the run in PATH have changed: start another run",
        )
        save_preprocessing(run, data)
        job.fit_threads(model, data, recipe, run)
        if origin is None:
            model, origin = _train_reference(job, model, data, recipe, run)
        if len(steepness) < len(CALIBRATED_SETTINGS) and not recipe.stages:
            defense = fit_penalty(backend, model, data.x_train, data.y_train, defense, recipe.seed)
            defense = replace(defense, **steepness)
            watcher.say(f"fitted to the network: c {defense.c:g}, d {defense.d:g}")
        _, report = harden_in_folder(
            backend,
            model,
            monitor,
            network=NetworkInfo(settings["network"], count_weights(backend, model), origin),
            defense=defense,
            recipe=recipe,
            guard=guard,
            run=run,
            watcher=watcher,
        )
        return report, run.path


def _choose_recipe(settings: Mapping[str, Any], examples: int) -> Recipe:
    """Return the recipe for this number of training examples."""
    if not settings["stages"]:
        return choose_fields(Recipe, settings)
    names = {declared.name for declared in list_settings(Recipe) if declared.option}
    if settings["optimizer_steps"] is None:
        names.remove("optimizer_steps")
    return Recipe.staged(examples, **{name: settings[name] for name in names})


def _check_classes(data: Dataset) -> None:
    """Raise `DataError` unless a reference network can learn all classes of the test set."""
    if missing := data.name_missing(np.unique(data.y_test)):
        raise DataError(
            f"{data.name}: training must have all labels of the test set, none of its examples is "
            f"of {missing}: add some, or give --weights of a network that knows them"
        )


def _train_reference(
    job: Job, model: Any, data: Dataset, recipe: Recipe, run: RunFolder
) -> tuple[Any, str]:
    """Return the trained reference network, and a text for the report on how it was trained."""
    steps = math.ceil(len(data.x_train) / recipe.batch_size)
    epochs = max(REFERENCE_EPOCHS, math.ceil(REFERENCE_STEPS / steps))
    reference = train_reference(
        job.backend,
        model,
        data,
        Recipe.paper(
            epochs=epochs,
            lr=REFERENCE_LR,
            decay=REFERENCE_DECAY,
            batch_size=recipe.batch_size,
            seed=recipe.seed,
            **recipe.augmentation,
        ),
        run=run,
        file=REFERENCE_FILE,
        about={"network": job.settings["network"]},
        announcement=f"no weights given: training a reference network for {epochs} epochs",
        watcher=job.watcher,
    )
    return reference, f"trained in this run, {epochs} epochs"
