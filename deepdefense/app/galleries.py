"""Choose the examples that a page shows, with perturbations that change their predicted class."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from deepdefense.attacks.deepfool import deepfool
from deepdefense.evaluation.dataset import Dataset
from deepdefense.evaluation.report import Report
from deepdefense.evaluation.rho_protocol import RHO_ATTACK
from deepdefense.evaluation.subject import HostArray
from deepdefense.seam.contract import Model
from deepdefense.seam.training_contract import TrainingBackend
from deepdefense.training.hardening import HardeningOutcome

if TYPE_CHECKING:
    from deepdefense.app.pages import Gallery, WeakestExamples

__all__ = ["ToPictures", "choose_gallery", "choose_weakest"]

GALLERY_SIZE = 6

# A function that converts examples [n ...] to pictures [n h w c] with values from 0 to 1. If the
# examples are not images, the function returns None.
ToPictures = Callable[[HostArray], HostArray | None]


def choose_gallery(
    backend: TrainingBackend, model: Model, outcome: HardeningOutcome, data: Dataset
) -> Gallery | None:
    """Return up to six test examples, each with one perturbation for each of two networks.

    The two networks are `model` and the hardened `outcome.model`, and DeepFool finds the
    perturbations. An example is usable if both networks classify it correctly and DeepFool
    succeeds on both. The first usable example of each class is chosen. Return None if no example
    is usable, or if the examples are not images.
    """
    from deepdefense.app.pages import Gallery

    before, after = outcome.before, outcome.after
    usable = before.correct & after.correct & before.success & after.success
    firsts = [np.flatnonzero(usable & (data.y_test == label))[:1] for label in range(data.classes)]
    rows = np.concatenate(firsts)[:GALLERY_SIZE]
    images = data.to_pictures(data.x_test[rows])
    if images is None or not len(rows):
        return None
    batch = backend.asarray(data.x_test[rows], model)
    deltas, names = [], []
    for network in (model, outcome.model):
        with backend.precise():
            perturbation = deepfool(network, batch, **RHO_ATTACK)
            with backend.inference(network) as f:
                predicted = backend.to_numpy(backend.forward(f, perturbation.x)).argmax(1)
        perturbed = data.to_pictures(backend.to_numpy(perturbation.x))
        assert perturbed is not None
        deltas.append(perturbed - images)
        names.append(_name_classes(predicted, data.class_names))
    return Gallery(
        images=images,
        delta_before=deltas[0],
        delta_after=deltas[1],
        labels=_name_classes(data.y_test[rows], data.class_names),
        fooled_before=names[0],
        fooled_after=names[1],
        rho_before=before.rho[rows],
        rho_after=after.rho[rows],
    )


def choose_weakest(report: Report, to_pictures: ToPictures | None) -> WeakestExamples | None:
    """Return the examples, at most six, that attacks fooled with the smallest perturbations.

    Return None if no attack fooled any example, or if the examples are not images. If
    `to_pictures` is None, only examples with bounds 0 and 1 and with 1 or 3 channels are images.
    """
    from deepdefense.app.pages import WeakestExamples

    to_pictures = to_pictures or _convert_within_bounds(report)
    minima = report.minima
    fooled = np.flatnonzero(minima.by >= 0)
    rows = fooled[np.argsort(minima.distance[fooled], kind="stable")][:GALLERY_SIZE]
    if not len(rows):
        return None
    images, perturbed = to_pictures(report.x[rows]), to_pictures(minima.points[rows])
    if images is None or perturbed is None:
        return None
    class_names = dict(report.data)["class_names"]
    return WeakestExamples(
        images=images,
        deltas=perturbed - images,
        labels=_name_classes(report.y[rows], class_names),
        fooled=_name_classes(minima.predicted[rows], class_names),
        distances=minima.distance[rows],
        attacks=tuple(minima.outcomes[i].attack.name for i in minima.by[rows]),
        rows=tuple(int(i) for i in rows),
    )


def _convert_within_bounds(report: Report) -> ToPictures:
    """Return a function that converts images with bounds 0 and 1 to pictures, with channels last.

    The function returns None for all other examples.
    """

    def to_pictures(x: HostArray) -> HostArray | None:
        if report.threat.bounds != "0 to 1" or x.ndim != 4:
            return None
        if x.shape[1] in (1, 3):
            return np.moveaxis(x, 1, 3)
        return x if x.shape[3] in (1, 3) else None

    return to_pictures


def _name_classes(classes: HostArray, names: Sequence[str]) -> tuple[str, ...]:
    """Return the name of each class index, or the index as text if the data have no name for it."""
    return tuple(str(names[i]) if i < len(names) else str(i) for i in map(int, classes))
