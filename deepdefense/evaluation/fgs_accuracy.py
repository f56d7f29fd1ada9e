"""The paper's fast-gradient-sign test: accuracy at fractions of a common eps_ref."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from deepdefense.attacks.fgsm import fgsm
from deepdefense.errors import InputError
from deepdefense.evaluation.statistics import is_correct
from deepdefense.evaluation.subject import Subject, open_subject, select_finite
from deepdefense.seam.contract import Array, Model
from deepdefense.seam.validation import check_number

__all__ = ["eps_ref", "fgs_accuracy"]

# The search starts at a thousandth of the largest |x|, doubles eps, then halves the last interval.
DOUBLINGS, HALVINGS = 60, 20


def fgs_accuracy(
    model: Model,
    x: Array,
    y: Array,
    eps: Sequence[float],
    *,
    bounds: tuple[Any, Any] | None = None,
    batch_size: int = 500,
) -> tuple[float, ...]:
    """Return the accuracy on x + eps sign(grad_x CE), for each eps.

    Args:
        model: a batch [b ...] -> logits [b k].
        x: examples [n ...], of the model's framework, or NumPy arrays for a native model.
        y: labels [n]; the gradient is that of the cross-entropy with these labels.
        eps: sizes of the step, in the units of x.
        bounds: (low, high), the range of perturbed examples; the paper has none.
        batch_size: the number of examples in a batch.

    Raises:
        InputError: there is no example, or an argument is out of range or has the wrong shape.

    >>> import numpy as np
    >>> weight = np.array([[3.0, 4.0], [0.0, 0.0]])
    >>> x, y = np.array([[1.0, 0.5], [4.0, 4.0]]), np.array([0, 0])
    >>> fgs_accuracy(lambda x: x @ weight.T, x, y, [0.0, 0.8, 8.0])  # first falls at 5 / 7
    (1.0, 0.5, 0.0)

    Source: Yan, Guo and Zhang (2018), section 4; Goodfellow, Shlens and Szegedy (2015).
    """
    for size in eps:
        check_number("eps", size, least=0)
    with _open_sign_steps(model, x, y, bounds, batch_size) as accuracy:
        return tuple(accuracy(float(size)) for size in eps)


def eps_ref(
    model: Model,
    x: Array,
    y: Array,
    *,
    level: float = 0.5,
    bounds: tuple[Any, Any] | None = None,
    batch_size: int = 500,
) -> float:
    """Return the smallest eps at which `fgs_accuracy` falls to `level`.

    The paper measures eps_ref on its own model at 50 %, and tests every model at 0.2, 0.5 and 1.0
    times that eps. Here the caller chooses the model and the level.

    The search doubles eps until accuracy is at or below the level, then bisects the last interval.
    Accuracy need not fall steadily, so it finds the first crossing only as far as the doubling
    resolves it.

    Raises:
        InputError: accuracy is at or below the level at eps = 0, or never falls to it.

    >>> import numpy as np
    >>> weight = np.array([[3.0, 4.0], [0.0, 0.0]])
    >>> x, y = np.array([[1.0, 0.5], [4.0, 4.0]]), np.array([0, 0])
    >>> round(eps_ref(lambda x: x @ weight.T, x, y), 3)  # 5 / ||(3, 4)||_1
    0.714

    Source: Yan, Guo and Zhang (2018), section 4.
    """
    level = check_number("level", level, least=0, below=1)
    with _open_sign_steps(model, x, y, bounds, batch_size) as accuracy:
        clean = accuracy(0.0)
        if clean <= level:
            raise InputError(
                f"accuracy is {clean:.1%} without a perturbation, not above the level {level:.1%}"
            )
        low, high = 0.0, 1e-3 * (accuracy.largest_input or 1.0)
        for _ in range(DOUBLINGS):
            if accuracy(high) <= level:
                break
            low, high = high, 2 * high
        else:
            raise InputError(
                f"no eps brings accuracy down to {level:.1%}: the single step does not work on "
                "this model; see deepdefense.doctor"
            )
        for _ in range(HALVINGS):
            middle = (low + high) / 2
            low, high = (low, middle) if accuracy(middle) <= level else (middle, high)
    return high


class _SignStepAccuracy:
    """The accuracy after a sign step of a given size; it computes the directions once."""

    def __init__(self, subject: Subject) -> None:
        self._subject = subject
        rows, self._steps = np.flatnonzero(subject.correct), []
        for batch in subject.iterate_batches(rows):
            x, y = subject.load_examples(batch)
            # Scaled logits would change the gradient of the cross-entropy, so use the model's own.
            result = fgsm(subject.compiled, x, y, eps=1.0)
            self._steps.append((batch, np.sign(subject.backend.to_numpy(result.delta))))
        self.largest_input = float(np.max(np.abs(select_finite(subject.x)), initial=0))

    def __call__(self, eps: float) -> float:
        subject, count = self._subject, 0
        for batch, sign in self._steps:
            points = subject.displace(batch, np.asarray(eps, subject.x.dtype) * sign)
            count += int(is_correct(subject.predict(points), subject.y[batch]).sum())
        return count / len(subject.x)


@contextmanager
def _open_sign_steps(
    model: Model, x: Array, y: Array, bounds: Any, batch_size: int
) -> Iterator[_SignStepAccuracy]:
    with open_subject(model, x, y, bounds=bounds, batch_size=batch_size) as subject:
        yield _SignStepAccuracy(subject)
