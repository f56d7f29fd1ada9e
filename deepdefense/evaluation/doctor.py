"""`doctor`: checks a network for faults that distort robustness figures, without an attack."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from deepdefense.evaluation.checks import Check
from deepdefense.evaluation.checks.run_checks import run_network_checks
from deepdefense.evaluation.subject import open_subject
from deepdefense.seam.contract import Array, Model

__all__ = ["Diagnosis", "doctor"]


@dataclass(frozen=True)
class Diagnosis:
    """The results of the checks that `doctor` ran, which can be iterated over or printed."""

    checks: tuple[Check, ...]

    @property
    def healthy(self) -> bool:
        """Whether no check fails; warnings are allowed."""
        return all(check.status != "fail" for check in self.checks)

    def __iter__(self) -> Iterator[Check]:
        """Iterate over the checks in the order in which they ran."""
        return iter(self.checks)

    def __str__(self) -> str:
        """Return one line or two for every check: failures first, then warnings, then passes."""
        order = ("fail", "warn", "pass")
        return "\n".join(map(str, sorted(self.checks, key=lambda c: order.index(c.status))))


def doctor(
    model: Model,
    x: Array,
    y: Array,
    *,
    bounds: tuple[Any, Any] | None = None,
    batch_size: int = 500,
) -> Diagnosis:
    """Check a model, without attacking it, for faults that would make robustness figures wrong.

    The checks detect:

    - outputs that are probabilities, or that depend on the batch or on chance,
    - inputs whose units differ from those of the bounds,
    - a model in training mode,
    - a softmax that rounds to 0 and 1, and input gradients that are missing, zero or wrong.

    Args:
        model: a batch [b ...] -> logits [b k].
        x: examples [n ...]: an array of the model's framework, or a NumPy array.
        y: labels [n].
        bounds: (low, high), the range of perturbed examples: two numbers, or two arrays with the
            shape of an example.
        batch_size: the number of examples in a batch.

    Returns:
        A `Diagnosis` with one `Check` for each property that was checked.

    Raises:
        InputError: there is no example, or an argument is out of range or has the wrong shape.

    >>> import numpy as np
    >>> weight = np.array([[3.0, 4.0], [0.0, 0.0]])
    >>> x, y = np.array([[1.0, 0.5], [-1.0, 0.25]]), np.array([0, 1])
    >>> doctor(lambda x: x @ weight.T, x, y).healthy
    True
    """
    with open_subject(model, x, y, bounds=bounds, batch_size=batch_size) as subject:
        return Diagnosis(run_network_checks(subject))
