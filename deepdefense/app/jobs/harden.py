"""`harden`: fine-tune a trained classifier, in a script or from the command line."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from deepdefense.app.jobs.harden_results import harden_and_write
from deepdefense.app.runs import RunFolder
from deepdefense.defenses.calibration import fit_penalty
from deepdefense.defenses.deep_defense import DeepDefense
from deepdefense.defenses.objective import Objective
from deepdefense.errors import InputError
from deepdefense.evaluation.dataset import dataset_from_arrays, fingerprint
from deepdefense.evaluation.provenance import NetworkInfo
from deepdefense.seam.choosing import backend_for, current_backend, to_host
from deepdefense.seam.progress import Watcher
from deepdefense.seam.training import training_backend
from deepdefense.seam.validation import check_kind, check_pair
from deepdefense.training.guard import Guard
from deepdefense.training.hardening import count_weights, prepare_monitor
from deepdefense.training.recipe import Recipe
from deepdefense.training.report import HardeningReport, describe_objective

__all__ = ["harden"]


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
    data = dataset_from_arrays(*map(to_host, (x_train, y_train, x_test, y_test)))
    recipe, guard = recipe or Recipe(), guard or Guard()
    monitor = prepare_monitor(backend, model, data, recipe, guard)
    run = None
    if out is not None:
        settings = {
            "data": data.fingerprint(),
            "weights": fingerprint(backend.weights(model).values()),
            "defense": None if defense is None else describe_objective(defense),
            "recipe": asdict(recipe),
            "guard": asdict(guard),
        }
        begin = RunFolder.reopen if resume else RunFolder.create
        run = begin(Path(out), settings)
    elif resume:
        raise InputError("resume needs the folder of the run: out")
    if defense is None:
        defense = fit_penalty(
            backend, model, data.x_train, data.y_train, DeepDefense(), recipe.seed
        )
    network = NetworkInfo(type(model).__name__, count_weights(backend, model), "given")
    return harden_and_write(
        backend,
        model,
        monitor,
        network=network,
        defense=defense,
        recipe=recipe,
        guard=guard,
        run=run,
        watcher=watcher or Watcher(),
    )
