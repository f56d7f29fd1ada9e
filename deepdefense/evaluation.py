"""How accurate and how robust a model is on held-out data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from deepdefense.attacks.deepfool import deepfool
from deepdefense.backend import Array, Backend, Model, backend_for, to_host
from deepdefense.checks import check_count, check_labels, check_order
from deepdefense.errors import InputError
from deepdefense.metrics import rho

__all__ = ["Measurement", "Report", "evaluate", "measure"]


class Measurement(NamedTuple):
    """What was measured of each example [n], in host memory."""

    correct: npt.NDArray[np.bool_]
    rho: npt.NDArray[np.float64]
    success: npt.NDArray[np.bool_]
    steps: npt.NDArray[np.int64]
    measured: npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Report:
    """Accuracy and robustness of one model on n examples.

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
        fields = asdict(self)
        if self.rho_p is None:
            for name in ("p", "rho_p", "rho_p_median"):
                del fields[name]
        return fields


def measure(
    model: Model,
    x: Array,
    y: Array,
    *,
    backend: Backend,
    p: float = 2,
    steps: int = 50,
    overshoot: float = 0.02,
    candidates: int = 10,
    batch_size: int = 500,
    progress: Callable[[int], object] = lambda done: None,
) -> Measurement:
    """Attack every example from its predicted class; `progress` hears how many are done."""
    xp, parts, labels = backend.xp, [], to_host(y)
    for start in range(0, len(x), batch_size):
        batch = backend.asarray(x[start : start + batch_size], model)
        found = deepfool(model, batch, p=p, steps=steps, overshoot=overshoot, candidates=candidates)
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


def summarize(found: Measurement, other: Measurement | None = None, p: float = 2) -> Report:
    """The report of a measurement with p = 2, and of another one with order p."""
    return Report(
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


def evaluate(
    model: Model,
    x: Array,
    y: Array,
    *,
    p: float = 2,
    steps: int = 50,
    overshoot: float = 0.02,
    candidates: int = 10,
    batch_size: int = 500,
) -> Report:
    """Accuracy, and rho by DeepFool, of a model on held-out examples.

    Args:
        model: a batch [b ...] -> logits [b k].
        x: examples [n ...], of the model's framework, or NumPy's for a native model.
        y: labels [n].
        p: order of a second norm to measure in, besides 2.
        steps: of `deepfool`.
        overshoot: of `deepfool`.
        candidates: of `deepfool`.
        batch_size: how many examples are attacked at a time.

    Raises:
        InputError: no example, or an argument out of range or of the wrong shape.

    >>> import numpy as np
    >>> weight = np.array([[3.0, 4.0], [0.0, 0.0]])
    >>> report = evaluate(lambda x: x @ weight.T, np.array([[1.0, 0.5]]), np.array([0]))
    >>> report.accuracy, round(report.rho_2, 4)  # 1.02 * 1 / ||x||
    (1.0, 0.9123)

    DeepFool gives an upper bound of the distance to the boundary, so rho is an upper bound too.

    Source: Moosavi-Dezfooli, Fawzi and Frossard (2016), section 4.
    """
    backend = backend_for(model, x)
    check_count("batch_size", batch_size, least=1)
    check_labels(y, x)
    if len(x) == 0:
        raise InputError("there is no example to evaluate on")

    def found(order: float) -> Measurement:
        return measure(
            model,
            x,
            y,
            backend=backend,
            p=order,
            steps=steps,
            overshoot=overshoot,
            candidates=candidates,
            batch_size=batch_size,
        )

    return summarize(found(2), None if check_order(p) == 2 else found(p), p)
