"""Train the undefended reference network, or harden a network, and save files in a run folder."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from deepdefense.app.galleries import choose_gallery
from deepdefense.app.load_network import load_network_weights
from deepdefense.app.run_folder import (
    CHECKPOINT_FILE,
    HARDENED_FILE,
    PREPROCESSING_FILE,
    THREADS_FILE,
    RunFolder,
)
from deepdefense.defenses.objective import Objective
from deepdefense.errors import InputError
from deepdefense.evaluation.dataset import Dataset
from deepdefense.evaluation.provenance import NetworkInfo
from deepdefense.evaluation.rho_protocol import RHO_ATTACK
from deepdefense.seam.progress import Watcher
from deepdefense.seam.training_contract import TrainingBackend
from deepdefense.training.guard import Guard
from deepdefense.training.hardening import HardeningOutcome, harden_network
from deepdefense.training.loop import run_training
from deepdefense.training.monitor import Monitor
from deepdefense.training.recipe import Recipe
from deepdefense.training.report import HardeningReport

__all__ = ["harden_in_folder", "save_preprocessing", "train_reference"]


def train_reference(
    backend: TrainingBackend,
    model: Any,
    data: Dataset,
    recipe: Recipe,
    *,
    run: RunFolder,
    file: str,
    about: Mapping[str, Any],
    announcement: str,
    watcher: Watcher,
) -> Any:
    """Return the undefended reference network, made from `model` by training or loading weights.

    If the run folder holds the weights `file`, they are loaded. Otherwise the watcher prints
    `announcement`, the network is trained, and its weights are saved to `file` with the facts
    `about` them. Raises `InputError` if training diverges.
    """
    path = run.path / file
    if path.exists():
        return load_network_weights(backend, model, path)
    watcher.say(announcement)
    trainer = recipe.make_trainer(backend, model)
    progress = run_training(
        "reference",
        trainer,
        Monitor.draw(backend, data, recipe.seed, RHO_ATTACK),
        recipe=recipe,
        objective=Objective(),
        checkpoint=run.checkpoint,
        watcher=watcher,
    )
    if progress.stopped:
        raise InputError(f"the reference network could not be trained: {progress.stopped}")
    run.save(file, backend.weights(trainer.model), about)
    return trainer.model


def harden_in_folder(
    backend: TrainingBackend,
    model: Any,
    monitor: Monitor,
    *,
    network: NetworkInfo,
    defense: Objective,
    recipe: Recipe,
    guard: Guard,
    validation: tuple[Any, Any] | None = None,
    run: RunFolder | None,
    watcher: Watcher,
) -> tuple[Any, HardeningReport]:
    """Harden a network; return the hardened network and the report on it.

    If `run` is a run folder, training saves checkpoints to it, and the results are written to it.
    """
    outcome = harden_network(
        backend,
        model,
        monitor,
        network=network,
        defense=defense,
        recipe=recipe,
        guard=guard,
        validation=validation,
        checkpoint=None if run is None else run.checkpoint,
        watcher=watcher,
    )
    if run is not None:
        _write_outcome(run, outcome, backend, model, monitor.data)
    return outcome.model, outcome.report


def save_preprocessing(run: RunFolder, data: Dataset) -> None:
    """Write the file that says how to make inputs of the network from raw examples.

    The input is (raw - offset) / divisor, with the arrays `offset` and `divisor` of the file.
    """
    offset, divisor = data.units
    about = {
        "preprocessing": data.preprocessing,
        "class_names": data.class_names,
        "feature_names": data.feature_names,
    }
    run.save(PREPROCESSING_FILE, {"offset": offset, "divisor": divisor}, about)


def _write_outcome(
    run: RunFolder, outcome: HardeningOutcome, backend: TrainingBackend, model: Any, data: Dataset
) -> None:
    from deepdefense.app.pages import render_hardening

    content = outcome.report.as_dict()
    about = {"network": content["network"], "data": content["data"], "after": content["after"]}
    run.save(HARDENED_FILE, backend.weights(outcome.model), about)
    page = render_hardening(
        outcome.report,
        rho_before=outcome.before.rho,
        rho_after=outcome.after.rho,
        gallery=choose_gallery(backend, model, outcome, data),
    )
    run.write_results(page, content)
    run.remove(CHECKPOINT_FILE)
    run.remove(THREADS_FILE)
