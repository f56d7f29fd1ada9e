"""The fast-gradient-sign test of the Deep Defense paper: accuracy after one step of size eps."""

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

# The largest number of doublings of eps in `eps_ref`, and the number of bisections after them.
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
    """Return the accuracy on the perturbed examples x + eps sign(grad_x CE), for each eps.

    CE is the cross-entropy of the model's logits with the labels y.

    Args:
        model: a batch [b ...] -> logits [b k].
        x: examples [n ...]: an array of the model's framework, or a NumPy array.
        y: labels [n].
        eps: the step sizes, in the units of x.
        bounds: (low, high); perturbed examples are clipped to this range. The paper does not clip.
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
    """Return the smallest eps at which `fgs_accuracy` is `level` or less.

    The search doubles eps until accuracy is `level` or less, then bisects between the last two
    values of eps. It assumes that accuracy does not rise again as eps grows.

    Args:
        model: a batch [b ...] -> logits [b k].
        x: examples [n ...]: an array of the model's framework, or a NumPy array.
        y: labels [n].
        level: an accuracy, from 0 to less than 1. The paper uses 0.5.
        bounds: (low, high); perturbed examples are clipped to this range. The paper does not clip.
        batch_size: the number of examples in a batch.

    Raises:
        InputError: accuracy is `level` or less at eps = 0, or above it at every eps tried.

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
    """A function from eps to the accuracy of a subject after a step eps * sign(gradient).

    The signs are computed once. Examples that are misclassified without a step count as
    misclassified for every eps.
    """

    def __init__(self, subject: Subject) -> None:
        self._subject = subject
        rows, self._steps = np.flatnonzero(subject.correct), []
        for batch in subject.iterate_batches(rows):
            x, y = subject.load_examples(batch)
            # Use the logits as the model returns them. Dividing them by `subject.scale` would
            # change the softmax, and with it the direction of the cross-entropy's gradient.
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
