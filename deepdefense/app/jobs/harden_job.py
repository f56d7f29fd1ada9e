"""What `deepdefense harden` does: from settings to data, network, reference and hardened network.

Settings are a flat mapping of plain values, kept in the run's folder, so that a run can be resumed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from deepdefense.app.data import load
from deepdefense.app.jobs.harden_results import harden_and_write
from deepdefense.app.networks import first_installed, network_named, with_weights
from deepdefense.app.runs import REFERENCE, RunFolder, new_path, unfinished
from deepdefense.defenses.calibration import fit_penalty
from deepdefense.defenses.deep_defense import DeepDefense
from deepdefense.defenses.objective import Objective
from deepdefense.errors import InputError
from deepdefense.evaluation.dataset import Dataset, fingerprint
from deepdefense.evaluation.protocol import RHO_ATTACK
from deepdefense.evaluation.provenance import NetworkInfo
from deepdefense.seam.progress import Watcher
from deepdefense.seam.training import TrainingBackend, training_backend
from deepdefense.training.guard import Guard
from deepdefense.training.hardening import count_weights, prepare_monitor
from deepdefense.training.loop import run_training
from deepdefense.training.monitor import Monitor
from deepdefense.training.recipe import Recipe
from deepdefense.training.report import HardeningReport

__all__ = ["DEFAULTS", "run_job"]

# The reference network, where none is given: ten epochs, or enough of them for a small data set.
REFERENCE_EPOCHS, REFERENCE_STEPS = 10, 1000


REFERENCE_LR, REFERENCE_DECAY = 1e-3, 0.1


DEFAULTS: dict[str, Any] = {
    "data": "digits",
    "data_dir": None,
    "network": "mlp",
    "weights": None,
    "backend": "torch",
    "device": None,
    "epochs": 5,
    "lr": 5e-4,
    "batch_size": 100,
    "warmup": 0.0,
    "clip": None,
    "flip": False,
    "shift": 0,
    "channels_last": False,
    "lam": 15.0,
    "c": None,
    "d": None,
    "steps": 5,
    "candidates": 10,
    "p": 2.0,
    "gradient": "unrolled",
    "max_accuracy_drop": None,
    "patience": None,
    "seed": 0,
}


# The paper's settings are for MNIST; c and d are fitted to the network, where they are not given.
# The digits are fewer (15 steps an epoch). Chosen on other splits than seed 0's.
FITTED: dict[str, dict[str, Any]] = {
    "digits": {"epochs": 90, "lr": 1e-3, "c": 2.5, "d": 5.0},
}


def resolve(given: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a new run: what was given, else what fits the data, else the paper's."""
    data = given.get("data", DEFAULTS["data"])
    return {**DEFAULTS, "backend": first_installed(), **FITTED.get(data, {}), **given}


def run_job(
    given: Mapping[str, Any], *, out: Path | None, resume: bool, watcher: Watcher
) -> tuple[HardeningReport, Path]:
    """Do it, or go on with it; the report, and the folder with all that was written."""
    saved = RunFolder.reopen(out or unfinished("harden"), given) if resume else None
    settings = saved.settings if saved else resolve(given)
    backend = training_backend(settings["backend"])
    with backend.on_device(settings.get("device")):  # which older runs did not name
        return _run(backend, settings, saved, out, watcher)


def _run(
    backend: TrainingBackend,
    settings: dict[str, Any],
    saved: RunFolder | None,
    out: Path | None,
    watcher: Watcher,
) -> tuple[HardeningReport, Path]:
    steep = {name: settings[name] for name in ("c", "d") if settings[name] is not None}
    known = {name: value for name, value in settings.items() if name not in ("c", "d")}
    defense = _fields(DeepDefense, known | steep | {"p": float(settings["p"])})
    recipe, guard = _fields(Recipe, settings), _fields(Guard, settings)
    data = load(settings["data"], data_dir=settings["data_dir"], seed=recipe.seed)
    watcher.say(
        f"{data.name}: {len(data.x_train):,} training and {len(data.x_test):,} test examples "
        f"{list(data.x_train.shape[1:])}, {data.classes} classes"
    )
    if settings.get("bounded"):
        if data.pixel_bounds() is None:
            raise InputError(
                f"{data.name} has no range of pixels to keep within: leave out bounded"
            )
        defense = replace(defense, bounds=data.pixel_bounds())
    model = network_named(backend, settings["network"], data, recipe.seed)
    if settings["weights"] is not None:
        model = with_weights(backend, model, Path(settings["weights"]))
    monitor = prepare_monitor(backend, model, data, recipe, guard)
    # Only now that all is known to fit is anything written.
    initial = fingerprint(backend.weights(model).values())
    begun = settings | {"fingerprints": {"data": data.fingerprint(), "weights": initial}}
    if saved and saved.settings != begun:
        raise InputError(
            f"the data or the initial weights of the run in {saved.path} have changed: "
            "start another run"
        )
    run = saved or RunFolder.create(out or new_path("harden", settings), begun)
    watcher.say(f"writing to {run.path}")
    origin = settings["weights"]
    if origin is None:
        model, origin = _reference(backend, model, data, recipe, run, watcher)
    if len(steep) < 2:
        found = fit_penalty(backend, model, data.x_train, data.y_train, defense, recipe.seed)
        defense = replace(found, **steep)
        watcher.say(f"fitted to the network: c {defense.c:g}, d {defense.d:g}")
    network = NetworkInfo(settings["network"], count_weights(backend, model), origin)
    _, report = harden_and_write(
        backend,
        model,
        monitor,
        network=network,
        defense=defense,
        recipe=recipe,
        guard=guard,
        run=run,
        watcher=watcher,
    )
    return report, run.path


def _fields(kind: Any, settings: Mapping[str, Any]) -> Any:
    """A frozen dataclass from those settings that are its fields."""
    return kind(**{f.name: settings[f.name] for f in fields(kind) if f.name in settings})


def _reference(
    backend: TrainingBackend,
    model: Any,
    data: Dataset,
    recipe: Recipe,
    run: RunFolder,
    watcher: Watcher,
) -> tuple[Any, str]:
    """The network trained plainly, unless this run has done so already; where it came from."""
    steps = math.ceil(len(data.x_train) / recipe.batch_size)
    epochs = max(REFERENCE_EPOCHS, math.ceil(REFERENCE_STEPS / steps))
    plain = Recipe(
        epochs=epochs,
        lr=REFERENCE_LR,
        decay=REFERENCE_DECAY,
        batch_size=recipe.batch_size,
        seed=recipe.seed,
        **recipe.augmentation,
    )
    origin = f"trained in this run, {epochs} epochs"
    saved = run.load(REFERENCE)
    if saved:
        return backend.load(model, saved[0]), origin
    watcher.say(f"no weights given: training a reference network for {epochs} epochs")
    trainer = plain.make_trainer(backend, model)
    progress = run_training(
        "reference",
        trainer,
        Monitor.draw(backend, data, recipe.seed, RHO_ATTACK),
        recipe=plain,
        objective=Objective(),
        checkpoint=run.checkpoint,
        watcher=watcher,
    )
    if progress.stopped:
        raise InputError(f"the reference network could not be trained: {progress.stopped}")
    run.save(REFERENCE, backend.weights(trainer.model), {"network": run.settings["network"]})
    return trainer.model, origin
