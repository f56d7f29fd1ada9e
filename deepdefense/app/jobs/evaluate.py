"""Measure how robust a network is: `dd.evaluate` and the command `deepdefense evaluate`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from deepdefense.app.galleries import ToPictures, choose_weakest
from deepdefense.app.jobs.job import Job, open_job
from deepdefense.app.jobs.settings import DATA_OPTIONS, EVALUATE, AttackOptions, choose_fields
from deepdefense.app.run_folder import (
    HARDENED_FILE,
    REFERENCE_FILE,
    THREADS_FILE,
    RunFolder,
    find_latest,
)
from deepdefense.app.threads import RunThreads
from deepdefense.errors import InputError
from deepdefense.evaluation.assessment import assess
from deepdefense.evaluation.dataset import Dataset
from deepdefense.evaluation.feature_scales import describe_unequal_scales
from deepdefense.evaluation.plan import DEFAULT_PLAN, EvaluationPlan
from deepdefense.evaluation.provenance import NetworkInfo, Provenance
from deepdefense.evaluation.report import Report
from deepdefense.evaluation.rho_protocol import RHO_ATTACK
from deepdefense.evaluation.subject import HostArray
from deepdefense.seam.contract import Array, Model
from deepdefense.seam.progress import Watcher
from deepdefense.training.network_checks import check_network, count_weights
from deepdefense.zoo import NETWORKS

__all__ = ["evaluate", "find_hardened", "run_evaluate"]


def evaluate(
    model: Model,
    x: Array,
    y: Array,
    *,
    preset: str = DEFAULT_PLAN.preset,
    p: float = DEFAULT_PLAN.p,
    eps: float | Sequence[float] | None = None,
    bounds: tuple[Any, Any] | None = None,
    reference: Model | None = None,
    seed: int = DEFAULT_PLAN.seed,
    steps: int = DEFAULT_PLAN.rho["steps"],
    overshoot: float = DEFAULT_PLAN.rho["overshoot"],
    candidates: int = DEFAULT_PLAN.rho["candidates"],
    batch_size: int = DEFAULT_PLAN.batch_size,
    out: str | Path | None = None,
    watcher: Watcher | None = None,
) -> Report:
    """Measure accuracy, rho and distances to adversarial examples, and check the measurements.

    rho is the mean over examples of ||delta|| / ||x||, with the perturbation delta from DeepFool.
    The distance of an example is the norm of the smallest perturbation that any of several attacks
    finds. The distance is 0 if the example is misclassified without a perturbation, and infinite if
    every attack fails. Accuracy under attack within eps is the share of examples whose distance is
    larger than eps.

    Checks look for faults of the model or of the attacks that would make these figures wrong. If a
    severe check fails, `headline` of the report withholds the figures of robustness.

    Args:
        model: maps a batch [b ...] to logits [b k].
        x: examples [n ...] as an array of the model's framework. NumPy arrays are accepted too if
            the model belongs to a framework, as a `torch.nn.Module` does.
        y: labels [n].
        preset: "quick", "standard" or "thorough": which attacks run, with how many steps.
        p: the order of the norm that measures perturbations, 2 or inf. With inf, the report also
            holds rho_inf.
        eps: one or more perturbation radii at which to report accuracy under attack. `headline`
            uses the first one. None: the median distance of the correctly classified examples.
        bounds: (low, high), the range that perturbed examples keep within: two numbers, or two
            arrays of one example's shape.
        reference: the undefended network, which is attacked on the same examples for comparison.
        seed: the seed of all random numbers.
        steps: the largest number of iterations of the DeepFool attack that measures rho.
        overshoot: the overshoot of this DeepFool attack.
        candidates: the number of candidate classes of this DeepFool attack.
        batch_size: the number of examples attacked at a time. It does not change the report.
        out: a new folder, into which report.json and report.html are written. If it is the folder
            of an interrupted evaluation, that evaluation is continued.
        watcher: receives the progress.

    Returns:
        `Report`: `accuracy`, `rho_2`, `headline`, `distance`, `curve`, `attacks`, `checks`, ...

    Raises:
        InputError: there are no examples, or an argument is out of range or has the wrong shape.

    >>> import numpy as np
    >>> weight = np.array([[3.0, 4.0], [0.0, 0.0]])
    >>> report = evaluate(lambda x: x @ weight.T, np.array([[1.0, 0.5]]), np.array([0]))
    >>> report.accuracy, round(report.rho_2, 4)  # 1.02 * 1 / ||x||
    (1.0, 0.9123)
    >>> round(report.distance.median, 2), report.trusted  # 5 / ||(3, 4)||
    (1.0, True)

    Source: Moosavi-Dezfooli, Fawzi and Frossard (2016), section 4, for rho; Carlini et al. (2019),
    "On evaluating adversarial robustness", for the checks.
    """
    plan = EvaluationPlan.from_arguments(
        preset=preset,
        p=p,
        eps=eps,
        seed=seed,
        batch_size=batch_size,
        rho={"steps": steps, "overshoot": overshoot, "candidates": candidates},
    )
    run = None
    if out is not None:
        run = RunFolder(Path(out))
        # The arguments may have changed since: a stored result is named by a hash of everything
        # that it depends on, so a result for other arguments is never reused.
        unfinished = run.is_begun and not run.is_finished
        run = (RunFolder.resume if unfinished else RunFolder.create)(
            run.path, {"command": "evaluate"}
        )
    report = assess(
        model,
        x,
        y,
        plan,
        bounds=bounds,
        reference=reference,
        provenance=Provenance(_describe_model(model), _describe_model(reference), {}),
        storage=None if run is None else run.attack_storage,
        threads=None if run is None else RunThreads(run),
        watcher=watcher or Watcher(),
    )
    if run is not None:
        _write_report(run, report, None)
    return report


def run_evaluate(
    options: Mapping[str, Any], *, out: Path | None, resume: bool, watcher: Watcher
) -> tuple[Report, Path]:
    """Run `deepdefense evaluate` with these options; return the report and the run folder."""
    with open_job("evaluate", EVALUATE, options, out=out, resume=resume, watcher=watcher) as job:
        settings, attacks = job.settings, choose_fields(AttackOptions, job.settings)
        plan = EvaluationPlan.from_arguments(
            preset=attacks.preset,
            p=float(attacks.p),
            eps=attacks.eps or None,
            seed=attacks.seed,
            batch_size=attacks.batch_size,
            rho=RHO_ATTACK,
        )
        data = job.load_data()
        model, network = _load_network(job, data, settings["weights"])
        reference, undefended = None, network
        if settings["reference"] is not None:
            reference, undefended = _load_network(job, data, settings["reference"])
        data = job.match_labels(data, model)
        if unequal := describe_unequal_scales(data):
            watcher.say(f"warning: {unequal}")
        rows = _draw_rows(len(data.x_test), attacks.examples, attacks.seed)
        run = job.open_folder(
            data,
            [model] if reference is None else [model, reference],
            "the data or the weights of the evaluation in PATH have changed: start another",
        )
        report = assess(
            model,
            data.x_test[rows],
            data.y_test[rows],
            plan,
            bounds=data.pixel_bounds() if attacks.bounds == "pixels" else None,
            reference=reference,
            provenance=Provenance(network, undefended, _describe_source(data)),
            storage=run.attack_storage,
            threads=RunThreads(run),
            watcher=watcher,
        )
        _write_report(run, report, data.to_pictures)
        return report, run.path


def find_hardened(folder: Path | None) -> dict[str, Any]:
    """Return the options with which `run_evaluate` evaluates the result of a run of `harden`.

    The network before hardening becomes the reference. `folder` is the run folder of a finished run
    of `harden`. If it is None, the newest such folder in runs/ is used.
    """
    path = folder or find_latest("harden", finished=True)
    if path is None:
        raise InputError(
            "there is nothing to evaluate: name the folder of a run of harden, or a network by "
            "--network and --weights"
        )
    run = RunFolder(path)
    if not run.is_begun:
        raise InputError(f"there is no run of harden in {path}")
    settings = run.settings
    if run.command != "harden" or "network" not in settings:
        raise InputError(
            f"the run in {path} does not say which network and data it is of: name them by "
            "--network, --weights and --data"
        )
    if not run.is_finished:
        raise InputError(f"the run in {path} is not finished: resume it first")
    names = ("data", "data_dir", *DATA_OPTIONS, "network", "backend", "device", "seed")
    reference = path / REFERENCE_FILE
    return {
        **{name: settings[name] for name in names if settings.get(name) is not None},
        "weights": str(path / HARDENED_FILE),
        "reference": str(reference) if reference.is_file() else settings["weights"],
    }


def _load_network(job: Job, data: Dataset, weights: str | None) -> tuple[Any, NetworkInfo]:
    """Return the network that the settings name, with `weights` loaded, and its description."""
    name = job.settings["network"]
    if weights is None and name in NETWORKS:
        raise InputError(
            f"network {name} has no weights of its own: name a file of them with --weights"
        )
    model = job.load_network(data, weights)
    check_network(job.backend, model, job.match_labels(data, model))
    return model, NetworkInfo(name, count_weights(job.backend, model), weights or "the factory's")


def _draw_rows(n: int, count: int, seed: int) -> HostArray:
    """Return the sorted indices of `count` examples drawn from n, or of all if n <= `count`."""
    if count >= n:
        return np.arange(n)
    return np.sort(np.random.default_rng((seed, 2)).permutation(n)[:count])


def _describe_model(model: Any) -> NetworkInfo:
    return NetworkInfo(getattr(model, "__name__", type(model).__name__), None, "given")


def _describe_source(data: Dataset) -> dict[str, Any]:
    """Return what the report says about the data and cannot derive from the arrays x and y."""
    return {
        "name": data.name,
        "of": len(data.x_test),
        "class_names": tuple(data.class_names),
        "preprocessing": data.preprocessing,
    }


def _write_report(run: RunFolder, report: Report, to_pictures: ToPictures | None) -> None:
    from deepdefense.app.pages import render_evaluation

    page = render_evaluation(report, gallery=choose_weakest(report, to_pictures))
    run.write_results(page, report.as_dict())
    run.attack_storage.clear()
    run.remove(THREADS_FILE)
