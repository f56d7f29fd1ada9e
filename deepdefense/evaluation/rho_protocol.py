"""Measures accuracy and rho as the Deep Defense paper does, with the DeepFool attack.

rho is the average size of DeepFool's perturbations relative to the size of the examples.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from deepdefense.attacks.deepfool import deepfool
from deepdefense.geometry.rho import rho
from deepdefense.seam.choosing import to_host
from deepdefense.seam.contract import Array, Backend, Model

__all__ = [
    "RHO_ATTACK",
    "Measurement",
    "Summary",
    "measure_rho",
    "summarize_in_norm",
    "summarize_rho",
]

# The default settings of DeepFool when it measures rho.
RHO_ATTACK: Mapping[str, Any] = {"steps": 50, "overshoot": 0.02, "candidates": 10}


class Measurement(NamedTuple):
    """The accuracy and the rho of each of n examples, as NumPy arrays [n].

    Attributes:
        correct: a mask of the examples that the model classifies correctly.
        rho: ||D|| / ||x||, where D is the perturbation that DeepFool found for the example x, or 0
            where `measured` is false.
        success: a mask of the examples on which DeepFool changed the predicted class.
        steps: the number of DeepFool's steps on each example.
        measured: a mask of the examples x that are not zero everywhere, with finite x and logits.
    """

    correct: npt.NDArray[np.bool_]
    rho: npt.NDArray[np.float64]
    success: npt.NDArray[np.bool_]
    steps: npt.NDArray[np.int64]
    measured: npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Summary:
    """The accuracy and the rho of one model, averaged over n examples.

    The rho of an example x in the p-norm is ||D||_p / ||x||_p, where D is the perturbation with
    which DeepFool changes the predicted class, even if that class is not the label. If DeepFool
    fails, its last perturbation counts.

    Attributes:
        accuracy: the share of examples that the model classifies correctly.
        rho_2: the mean rho in the 2-norm.
        rho_2_median: the median rho in the 2-norm.
        success: the share of examples on which DeepFool in the 2-norm succeeds.
        iterations_mean: the mean number of steps of DeepFool in the 2-norm.
        n: the number of examples.
        unmeasured: the number of examples that are zero everywhere, or that have NaN or infinite
            values or logits. Each counts as rho = 0.
        p: the order of the norm of `rho_p`.
        rho_p: the mean rho in the p-norm, or None if it was not measured.
        rho_p_median: the median rho in the p-norm, or None if it was not measured.
    """

    accuracy: float
    rho_2: float
    rho_2_median: float
    success: float
    iterations_mean: float
    n: int
    unmeasured: int = 0
    p: float = 2.0
    rho_p: float | None = None
    rho_p_median: float | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return the fields as a dictionary for report.json.

        Leave out `p`, `rho_p` and `rho_p_median` if only rho_2 was measured.
        """
        unused = ("p", "rho_p", "rho_p_median") if self.rho_p is None else ()
        names = (f.name for f in fields(Summary) if f.name not in unused)
        return {name: getattr(self, name) for name in names}


def measure_rho(
    model: Model,
    x: Array,
    y: Array,
    *,
    backend: Backend,
    like: Any = None,
    p: float = 2,
    steps: int = 50,
    overshoot: float = 0.02,
    candidates: int = 10,
    batch_size: int = 500,
    progress: Callable[[int], object] = lambda done: None,
) -> Measurement:
    """Measure the accuracy of a model and the rho of each example, by DeepFool in the p-norm.

    Args:
        model: a batch [b ...] -> logits [b k].
        x: examples [n ...].
        y: labels [n]. DeepFool starts from the predicted class, whatever the label.
        backend: the backend of the model's framework.
        like: an array or a model; batches are placed on its device. The default is `model`.
        p: the order of the norm.
        steps: the largest number of DeepFool's steps.
        overshoot: DeepFool's overshoot.
        candidates: the number of DeepFool's candidate classes.
        batch_size: the number of examples in a batch.
        progress: called after each batch with the number of examples measured so far.
    """
    xp, parts, labels = backend.xp, [], to_host(y)
    for start in range(0, len(x), batch_size):
        batch = backend.asarray(x[start : start + batch_size], model if like is None else like)
        batch_labels = labels[start : start + batch_size]
        with backend.precise():
            result = deepfool(
                model, batch, p=p, steps=steps, overshoot=overshoot, candidates=candidates
            )
            with backend.inference(model) as f:
                logits = backend.to_numpy(backend.forward(f, batch))
        backend.index(batch_labels, logits.shape[1], batch)  # raises if a label is out of range
        ratios = backend.to_numpy(rho(result.delta, batch, p)).astype(np.float64)
        rows = xp.reshape(batch, (len(logits), -1))
        finite = np.isfinite(logits).all(1) & backend.to_numpy(xp.all(xp.isfinite(rows), 1))
        parts.append(
            Measurement(
                correct=finite & (logits.argmax(1) == batch_labels),
                rho=np.where(finite, ratios, 0.0),
                success=backend.to_numpy(result.success),
                steps=backend.to_numpy(result.steps).astype(np.int64),
                measured=finite & backend.to_numpy(~xp.all(rows == 0, 1)),
            )
        )
        progress(start + len(logits))
    return Measurement(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def summarize_in_norm(
    p: float, measure: Callable[[float], Measurement]
) -> tuple[Summary, Measurement]:
    """Measure rho in the 2-norm, and also in the p-norm if p is not 2.

    `measure` maps the order of a norm to a `Measurement`. Return a summary, and the measurement in
    the 2-norm.
    """
    euclidean = measure(2)
    return summarize_rho(euclidean, None if p == 2 else measure(p), p), euclidean


def summarize_rho(
    euclidean: Measurement, other: Measurement | None = None, p: float = 2
) -> Summary:
    """Average a measurement in the 2-norm, and optionally `other`, a measurement in the p-norm."""
    return Summary(
        accuracy=float(euclidean.correct.mean()),
        rho_2=float(euclidean.rho.mean()),
        rho_2_median=float(np.median(euclidean.rho)),
        success=float(euclidean.success.mean()),
        iterations_mean=float(euclidean.steps.mean()),
        n=len(euclidean.rho),
        unmeasured=int((~euclidean.measured).sum()),
        p=float(p),
        rho_p=None if other is None else float(other.rho.mean()),
        rho_p_median=None if other is None else float(np.median(other.rho)),
    )
