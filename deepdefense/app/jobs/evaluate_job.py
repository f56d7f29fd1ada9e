"""What `deepdefense evaluate` does: from settings to data, networks, report and page."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from deepdefense.app.data import load
from deepdefense.app.jobs.evaluate_results import write
from deepdefense.app.networks import first_installed, network_named, with_weights
from deepdefense.app.runs import (
    HARDENED,
    REFERENCE,
    REPORT,
    SETTINGS,
    RunFolder,
    latest,
    new_path,
    unfinished,
)
from deepdefense.errors import InputError
from deepdefense.evaluation.assessment import assess
from deepdefense.evaluation.dataset import Dataset, fingerprint
from deepdefense.evaluation.plan import EvaluationPlan
from deepdefense.evaluation.protocol import RHO_ATTACK
from deepdefense.evaluation.provenance import NetworkInfo, Provenance
from deepdefense.evaluation.report import Report
from deepdefense.seam.progress import Watcher
from deepdefense.seam.training import TrainingBackend, training_backend
from deepdefense.seam.validation import check_count
from deepdefense.training.hardening import check_network, count_weights
from deepdefense.zoo import NETWORKS

__all__ = ["DEFAULTS", "hardened_in", "run_evaluation"]

DEFAULTS: dict[str, Any] = {
    "data": "digits",
    "data_dir": None,
    "network": "mlp",
    "weights": None,
    "reference": None,
    "backend": None,
    "device": None,
    "preset": "quick",
    "examples": 1000,
    "p": 2.0,
    "eps": [],
    "bounds": "pixels",
    "batch_size": 500,
    "seed": 0,
}


def hardened_in(folder: Path | None) -> dict[str, Any]:
    """The settings that evaluate what a run of `harden` made, beside the network it began with.

    Without a folder it is the newest finished run in runs/.
    """
    path = folder or latest("harden", finished=True)
    if path is None:
        raise InputError(
            "there is nothing to evaluate: name the folder of a run of harden, or a network by "
            "--network and --weights"
        )
    if not (path / SETTINGS).is_file():
        raise InputError(f"there is no run of harden in {path}")
    run = RunFolder(path)
    settings = run.settings
    if run.command != "harden" or "network" not in settings:
        raise InputError(
            f"the run in {path} does not say which network and data it is of: name them by "
            "--network, --weights and --data"
        )
    if not (path / REPORT).is_file():
        raise InputError(f"the run in {path} is not finished: resume it first")
    kept = ("data", "data_dir", "network", "backend", "device", "seed")
    trained = path / REFERENCE
    return {
        **{name: settings[name] for name in kept if settings.get(name) is not None},
        "weights": str(path / HARDENED),
        "reference": str(trained) if trained.is_file() else settings["weights"],
    }


def run_evaluation(
    given: Mapping[str, Any], *, out: Path | None, resume: bool, watcher: Watcher
) -> tuple[Report, Path]:
    """Do it, or go on with it; the report, and the folder with all that was written."""
    saved = RunFolder.reopen(out or unfinished("evaluate"), given, "evaluate") if resume else None
    fresh = {"command": "evaluate", **DEFAULTS, "backend": first_installed()}
    settings = saved.settings if saved else {**fresh, **given}
    backend = training_backend(settings["backend"])
    with backend.on_device(settings.get("device")):  # which older runs did not name
        return _run(backend, settings, saved, out, watcher)


def _run(
    backend: TrainingBackend,
    settings: dict[str, Any],
    saved: RunFolder | None,
    out: Path | None,
    watcher: Watcher,
) -> tuple[Report, Path]:
    seed = settings["seed"]
    plan = EvaluationPlan.from_arguments(
        preset=settings["preset"],
        p=float(settings["p"]),
        eps=settings["eps"] or None,
        seed=seed,
        batch_size=settings["batch_size"],
        rho=RHO_ATTACK,
    )
    check_count("examples", settings["examples"], least=1)
    data = load(settings["data"], data_dir=settings["data_dir"], seed=seed)
    model, network = _network(backend, settings, settings["weights"], data)
    reference, undefended = None, network
    if settings["reference"] is not None:
        reference, undefended = _network(backend, settings, settings["reference"], data)
    rows = _chosen(len(data.x_test), settings["examples"], seed)
    networks = [model] if reference is None else [model, reference]
    begun = settings | {
        "fingerprints": {
            "data": data.fingerprint(),
            "weights": [fingerprint(backend.weights(each).values()) for each in networks],
        }
    }
    if saved and saved.settings != begun:
        raise InputError(
            f"the data or the weights of the evaluation in {saved.path} have changed: start another"
        )
    run = saved or RunFolder.create(out or new_path("evaluate", settings), begun)
    watcher.say(f"writing to {run.path}")
    report = assess(
        model,
        data.x_test[rows],
        data.y_test[rows],
        plan,
        bounds=data.pixel_bounds() if settings["bounds"] == "pixels" else None,
        reference=reference,
        provenance=Provenance(network, undefended, _described(data)),
        storage=run.attack_storage,
        watcher=watcher,
    )
    write(run, report, data.to_pictures)
    return report, run.path


def _network(
    backend: TrainingBackend, settings: Mapping[str, Any], weights: str | None, data: Dataset
) -> tuple[Any, NetworkInfo]:
    """The named network with these weights, and what a report says of it."""
    name = settings["network"]
    if weights is None and name in NETWORKS:
        raise InputError(
            f"network {name} has no weights of its own: name a file of them with --weights"
        )
    model = network_named(backend, name, data, settings["seed"])
    if weights is not None:
        model = with_weights(backend, model, Path(weights))
    check_network(backend, model, data)
    return model, NetworkInfo(name, count_weights(backend, model), weights or "the factory's")


def _chosen(n: int, count: int, seed: int) -> Any:
    """So many of n examples, drawn by the seed, in their order."""
    if count >= n:
        return np.arange(n)
    return np.sort(np.random.default_rng((seed, 2)).permutation(n)[:count])


def _described(data: Dataset) -> dict[str, Any]:
    """What the report says of its data besides what the arrays show."""
    return {
        "name": data.name,
        "of": len(data.x_test),
        "class_names": tuple(data.class_names),
        "preprocessing": data.preprocessing,
    }
