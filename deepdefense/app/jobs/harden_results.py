"""The files that a hardening run leaves: weights, page and report."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from deepdefense.app.runs import CHECKPOINT, HARDENED, REPORT, RunFolder
from deepdefense.attacks.deepfool import deepfool
from deepdefense.evaluation.dataset import Dataset
from deepdefense.evaluation.protocol import RHO_ATTACK
from deepdefense.evaluation.rho import Measurement
from deepdefense.seam.training import TrainingBackend
from deepdefense.training.hardening import HardeningOutcome, harden_network
from deepdefense.training.monitor import Monitor
from deepdefense.training.report import HardeningReport

__all__ = ["harden_and_write"]

PAGE = "report.html"


GALLERY = 6


def harden_and_write(
    backend: TrainingBackend,
    model: Any,
    monitor: Monitor,
    *,
    run: RunFolder | None,
    **options: Any,
) -> tuple[Any, HardeningReport]:
    """Harden the network; with a run's folder, keep checkpoints there and write the results."""
    checkpoint = None if run is None else run.checkpoint
    outcome = harden_network(backend, model, monitor, checkpoint=checkpoint, **options)
    if run is not None:
        write_results(run, outcome, backend, model, monitor.data)
    return outcome.model, outcome.report


def write_results(
    run: RunFolder, outcome: HardeningOutcome, backend: TrainingBackend, model: Any, data: Dataset
) -> None:
    """The results, the report last: a folder with a report.json is complete."""
    from deepdefense.app.pages import render_hardening

    hardened, report, before, after = outcome
    content = report.as_dict()
    about = {"network": content["network"], "data": content["data"], "after": content["after"]}
    run.save(HARDENED, backend.weights(hardened), about)
    page = render_hardening(
        report,
        rho_before=before.rho,
        rho_after=after.rho,
        gallery=_gallery(backend, model, hardened, data, before, after),
    )
    run.write(PAGE, page)
    run.write(REPORT, json.dumps(content, indent=2, allow_nan=False) + "\n")
    run.remove(CHECKPOINT)


def _gallery(
    backend: TrainingBackend,
    model: Any,
    hardened: Any,
    data: Dataset,
    before: Measurement,
    after: Measurement,
) -> Any:
    """The first examples of as many classes that both networks get right, with what fools them."""
    from deepdefense.app.pages import Gallery

    usable = before.correct & after.correct & before.success & after.success
    rows = [np.flatnonzero(usable & (data.y_test == label))[:1] for label in range(data.classes)]
    chosen = np.concatenate(rows)[:GALLERY]
    images = data.to_pictures(data.x_test[chosen])
    if images is None or not len(chosen):
        return None
    batch = backend.asarray(data.x_test[chosen], model)
    deltas, names = [], []
    for network in (model, hardened):
        with backend.precise():
            found = deepfool(network, batch, **RHO_ATTACK)
            with backend.inference(network) as f:
                fooled = backend.to_numpy(backend.forward(f, found.x)).argmax(1)
        perturbed = data.to_pictures(backend.to_numpy(found.x))
        assert perturbed is not None
        deltas.append(perturbed - images)
        names.append(tuple(data.class_names[i] if i < data.classes else str(i) for i in fooled))
    return Gallery(
        images=images,
        delta_before=deltas[0],
        delta_after=deltas[1],
        labels=tuple(data.class_names[label] for label in data.y_test[chosen]),
        fooled_before=names[0],
        fooled_after=names[1],
        rho_before=before.rho[chosen],
        rho_after=after.rho[chosen],
    )
