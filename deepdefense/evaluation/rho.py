"""The paper's figures: accuracy, and rho by DeepFool from the predicted class."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from deepdefense.attacks.deepfool import deepfool
from deepdefense.geometry.rho import rho
from deepdefense.seam.choosing import to_host
from deepdefense.seam.contract import Array, Backend, Model

__all__ = ["Measurement", "Summary", "measure_rho", "summarize_in_norm", "summarize_rho"]


class Measurement(NamedTuple):
    """What was measured of each example [n], in host memory."""

    correct: npt.NDArray[np.bool_]
    rho: npt.NDArray[np.float64]
    success: npt.NDArray[np.bool_]
    steps: npt.NDArray[np.int64]
    measured: npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Summary:
    """Accuracy and rho of one model on n examples.

    rho_p = ||D||_p / ||x||_p with D by DeepFool from the *predicted* class, whatever the label. Its
    mean and median run over all n examples; one whose search failed counts with the perturbation it
    ended with, one that has no rho (`unmeasured`: not finite, or all zero) counts 0. `success` is
    the share of searches that succeeded and `iterations_mean` their steps, both for p = 2.
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
        """The fields as report.json has them; rho_p only where p is not 2."""
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
    """Attack every example from its predicted class; `progress` hears how many are done.

    Batches are placed where `like` is, the model unless something else is given.
    """
    xp, parts, labels = backend.xp, [], to_host(y)
    for start in range(0, len(x), batch_size):
        batch = backend.asarray(x[start : start + batch_size], model if like is None else like)
        with backend.precise():
            found = deepfool(
                model, batch, p=p, steps=steps, overshoot=overshoot, candidates=candidates
            )
            with backend.inference(model) as f:
                logits = backend.to_numpy(backend.forward(f, batch))
        backend.index(labels[start : start + batch_size], logits.shape[1], batch)  # in range?
        ratios = backend.to_numpy(rho(found.delta, batch, p)).astype(np.float64)
        rows = xp.reshape(batch, (len(logits), -1))
        finite = np.isfinite(logits).all(1) & backend.to_numpy(xp.all(xp.isfinite(rows), 1))
        parts.append(
            Measurement(
                correct=finite & (logits.argmax(1) == labels[start : start + batch_size]),
                rho=np.where(finite, ratios, 0.0),
                success=backend.to_numpy(found.success),
                steps=backend.to_numpy(found.steps).astype(np.int64),
                measured=finite & backend.to_numpy(~xp.all(rows == 0, 1)),
            )
        )
        progress(start + len(logits))
    return Measurement(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def summarize_in_norm(
    p: float, found: Callable[[float], Measurement]
) -> tuple[Summary, Measurement]:
    """The report with rho in the norm p too, `found` in each norm, and what is behind rho_2."""
    euclidean = found(2)
    return summarize_rho(euclidean, None if p == 2 else found(p), p), euclidean


def summarize_rho(found: Measurement, other: Measurement | None = None, p: float = 2) -> Summary:
    """The report of a measurement with p = 2, and of another one with order p."""
    return Summary(
        accuracy=float(found.correct.mean()),
        rho_2=float(found.rho.mean()),
        rho_2_median=float(np.median(found.rho)),
        success=float(found.success.mean()),
        iterations_mean=float(found.steps.mean()),
        n=len(found.rho),
        unmeasured=int((~found.measured).sum()),
        p=float(p),
        rho_p=None if other is None else float(other.rho.mean()),
        rho_p_median=None if other is None else float(np.median(other.rho)),
    )
