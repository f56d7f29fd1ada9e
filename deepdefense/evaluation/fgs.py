"""The paper's test by the fast gradient sign: accuracy at fractions of a common eps_ref."""

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

DOUBLINGS, HALVINGS = 60, 20  # from a thousandth of the largest |x|; then of the last interval


def fgs_accuracy(
    model: Model,
    x: Array,
    y: Array,
    eps: Sequence[float],
    *,
    bounds: tuple[Any, Any] | None = None,
    batch_size: int = 500,
) -> tuple[float, ...]:
    """Accuracy on x + eps sign(grad_x CE), for each eps.

    Args:
        model: a batch [b ...] -> logits [b k].
        x: examples [n ...], of the model's framework, or NumPy's for a native model.
        y: labels [n]; the gradient is of the cross-entropy with these.
        eps: sizes of the step, in the units of x.
        bounds: (low, high), the range of perturbed examples; the paper has none.
        batch_size: how many examples are taken at a time.

    Raises:
        InputError: no example, or an argument out of range or of the wrong shape.

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
    """The smallest eps at which accuracy under `fgs_accuracy` is down to `level`.

    The paper takes it of its own model, at 50 %, and tests every model at 0.2, 0.5 and 1.0 times
    it. Which model and which level are the caller's to choose.

    Accuracy need not fall steadily: eps is doubled until accuracy is at the level or below, and the
    last interval halved, so that it is the first crossing to the resolution of the doubling.

    Raises:
        InputError: accuracy is at the level already, or never falls to it.

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
        low, high = 0.0, 1e-3 * (accuracy.largest or 1.0)
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
    """Accuracy after a step of a given size; the directions are computed once."""

    def __init__(self, subject: Subject) -> None:
        self._subject = subject
        rows, self._steps = np.flatnonzero(subject.correct), []
        for batch in subject.iterate_batches(rows):
            x, y = subject.load_examples(batch)
            # The network as it came: with its logits scaled the direction would be another one.
            found = fgsm(subject.compiled, x, y, eps=1.0)
            self._steps.append((batch, np.sign(subject.backend.to_numpy(found.delta))))
        self.largest = float(np.max(np.abs(select_finite(subject.x)), initial=0))

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
