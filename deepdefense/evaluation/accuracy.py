"""Measure the accuracy of a network in inference mode."""

from __future__ import annotations

from typing import Any

from deepdefense.evaluation.statistics import is_correct
from deepdefense.seam.contract import Backend

__all__ = ["measure_accuracy"]


def measure_accuracy(backend: Backend, model: Any, x: Any, y: Any, batch_size: int = 500) -> float:
    """Return the share of the examples x [n ...] whose predicted class is their label y [n].

    `x` and `y` are arrays in host memory.
    """
    count = 0
    with backend.inference(model) as f:
        for start in range(0, len(x), batch_size):
            batch = backend.asarray(x[start : start + batch_size], model)
            logits = backend.to_numpy(backend.forward(f, batch))
            count += int(is_correct(logits, y[start : start + batch_size]).sum())
    return count / len(x)
