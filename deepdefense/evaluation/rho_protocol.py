"""The paper's figures: accuracy, and rho by DeepFool from the predicted class."""

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

# DeepFool's settings when it measures rho, whatever settings the penalty of training has.
RHO_ATTACK: Mapping[str, Any] = {"steps": 50, "overshoot": 0.02, "candidates": 10}


class Measurement(NamedTuple):
    """The measurements of each example [n], in host memory.

    `measured` is False where an example has no rho: it or its logits are not finite, or it is zero.
    """

    correct: npt.NDArray[np.bool_]
    rho: npt.NDArray[np.float64]
    success: npt.NDArray[np.bool_]
    steps: npt.NDArray[np.int64]
    measured: npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Summary:
    """Accuracy and rho of one model on n examples.

    rho_p = ||D||_p / ||x||_p with D by DeepFool from the *predicted* class, whatever the label. The
    mean and the median run over all n examples. If the search fails, the perturbation that it ended
    with counts. An example without a rho (`unmeasured`: not finite, or all zero) counts as 0.
    `success` is the share of searches that succeeded and `iterations_mean` is their mean number of
    steps, both for p = 2.
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
        """Return the fields as report.json has them; rho_p only if p is not 2."""
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
    """Attack every example from its predicted class by DeepFool.

    Batches are placed on the device of `like`, by default of the model. `progress` is called with
    the number of examples done so far.
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
    """Measure in the 2-norm, and in the norm p if it differs.

    Return the summary of both and the measurement in the 2-norm.
    """
    euclidean = measure(2)
    return summarize_rho(euclidean, None if p == 2 else measure(p), p), euclidean


def summarize_rho(
    euclidean: Measurement, other: Measurement | None = None, p: float = 2
) -> Summary:
    """Summarise a measurement in the 2-norm, and optionally another one in the norm p."""
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
