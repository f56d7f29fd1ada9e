"""Checks that need no attack: can the robustness of this network be measured by its gradients?"""

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
    """The result of `doctor`; iterating over it yields the checks."""

    checks: tuple[Check, ...]

    @property
    def healthy(self) -> bool:
        """Whether no check fails."""
        return all(check.status != "fail" for check in self.checks)

    def __iter__(self) -> Iterator[Check]:
        """Iterate over the checks, in order."""
        return iter(self.checks)

    def __str__(self) -> str:
        """Every check, failures first."""
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
    """Look for faults that would make robustness figures wrong, in seconds, without an attack.

    The checks find logits that are probabilities, inputs in other units than the bounds, a model in
    training mode, outputs that depend on the batch or on chance, and gradients that are missing,
    vanishing, saturated or wrong.

    Args:
        model: a batch [b ...] -> logits [b k].
        x: examples [n ...], of the model's framework, or NumPy arrays for a native model.
        y: labels [n].
        bounds: (low, high), the range of perturbed examples: numbers, or arrays of their shape.
        batch_size: the number of examples in a batch.

    Returns:
        `Diagnosis`, with `.checks` of `name`, `status`, `evidence`, `remedy` and `severe`.

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
