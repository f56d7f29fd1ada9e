"""The losses that attacks maximise: functions of the logits that also return their derivatives.

The gradients of these losses do not vanish where large logits round the softmax to exactly 0 and 1.
The gradient of the cross-entropy is 0 there (Carlini and Wagner, 2017, section 5).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

from einops import einsum, rearrange, reduce

from deepdefense.geometry.arithmetic import divide
from deepdefense.seam.contract import Array, Backend, Forward

__all__ = ["Loss", "dlr", "log_odds", "loss_gradient", "margin", "targeted_dlr"]


class Loss(NamedTuple):
    """The loss of each example, which rises away from the label, and the derivative of the loss."""

    value: Array  # [b]
    cotangent: Array  # [b k], d value / d logits


def loss_gradient(
    backend: Backend, f: Forward, point: Array, loss: Callable[[Array], Loss]
) -> tuple[Array, Array, Array]:
    """Return the logits [b k], the loss [b] and the gradient of the loss [b d] at points [b d].

    All three are detached: no gradient flows through them.
    """
    logits, fold = backend.class_gradients(f, point)
    value, cotangent = loss(logits)
    gradient = fold(
        lambda _, __, gradients: gradients[:, 0],
        backend.xp.zeros_like(point),
        rearrange(cotangent, "b k -> b 1 k"),
    )
    return logits, value, gradient


def _split_label(backend: Backend, logits: Array, label: Array) -> tuple[Array, Array]:
    """Return the label as one-hot [b k], and the logits [b k] with -inf in place of the label's."""
    one_hot = backend.one_hot(label, logits.shape[1], logits)
    return one_hot, backend.xp.where(one_hot > 0, backend.xp.zeros_like(logits) - math.inf, logits)


def _linear_loss(logits: Array, cotangent: Array) -> Loss:
    """Return the loss <cotangent, logits>, whose derivative is the cotangent [b k]."""
    return Loss(einsum(logits, cotangent, "b k, b k -> b"), cotangent)


def margin(backend: Backend, logits: Array, label: Array) -> Loss:
    """Return the margin (max_{k != y} f_k) - f_y, positive where the label is not predicted."""
    one_hot, others = _split_label(backend, logits, label)
    runner_up = backend.one_hot(backend.xp.argmax(others, 1), logits.shape[1], logits)
    return _linear_loss(logits, runner_up - one_hot)


def log_odds(backend: Backend, logits: Array, label: Array) -> Loss:
    """Return the log-odds against the label, (log sum_{k != y} exp f_k) - f_y.

    The log-odds equal log(exp(CE) - 1), with CE the cross-entropy. They rise with CE, and their
    gradient has the same direction as that of CE. But the gradient of CE contains the factor
    1 - p_y, with p_y the softmax probability of the label. float32 rounds this factor to 0 if f_y
    exceeds the other logits by 17 or more.
    """
    xp = backend.xp
    one_hot, others = _split_label(backend, logits, label)
    top = reduce(others, "b k -> b 1", "max")
    powers = xp.exp(others - top)
    total = reduce(powers, "b k -> b 1", "sum")
    value = rearrange(top + xp.log(total), "b 1 -> b") - einsum(logits, one_hot, "b k, b k -> b")
    return Loss(value, powers / total - one_hot)


def _ratio_loss(backend: Backend, logits: Array, gap: Array, scale: Array) -> Loss:
    """Return the loss <gap, f> / <scale, f> of the logits f, or <gap, f> where <scale, f> is 0.

    Shapes: logits f [b k], gap [b k], scale [b k].
    """
    xp = backend.xp
    above, below = _linear_loss(logits, gap).value, _linear_loss(logits, scale).value
    usable = below != 0
    value = divide(backend, above, below, where=usable, keep=True)
    # By the quotient rule, d value = (gap - value * scale) / <scale, f>.
    factor = rearrange(xp.where(usable, value, xp.zeros_like(value)), "b -> b 1")
    below, usable = (rearrange(each, "b -> b 1") for each in (below, usable))
    return Loss(value, divide(backend, gap - factor * scale, below, where=usable, keep=True))


def _select_ranked(backend: Backend, logits: Array, rank: int) -> Array:
    """Return the class with the given rank as one-hot [b k]; rank 0 has the highest logit.

    If the number of classes is too small for that rank, return the class with the lowest logit.
    """
    depth = logits.shape[1]
    order = backend.rank(logits, min(rank + 1, depth))
    return backend.one_hot(order[:, -1], depth, logits)


def dlr(backend: Backend, logits: Array, label: Array) -> Loss:
    """Return the difference of logits ratio, ((max_{k != y} f_k) - f_y) / (f_(1) - f_(3)).

    f_(i) is the i-th largest logit. The ratio does not change if the logits are shifted or scaled.
    With two classes there is no f_(3), so the loss is the margin.

    Source: Croce and Hein (2020), "Reliable evaluation of adversarial robustness with an ensemble
    of diverse parameter-free attacks", equation 6.
    """
    gap = margin(backend, logits, label)
    if logits.shape[1] < 3:
        return gap
    scale = _select_ranked(backend, logits, 0) - _select_ranked(backend, logits, 2)
    return _ratio_loss(backend, logits, gap.cotangent, scale)


def targeted_dlr(backend: Backend, logits: Array, label: Array, target: Array) -> Loss:
    """Return (f_t - f_y) / (f_(1) - (f_(3) + f_(4)) / 2), for the target class t [b].

    f_(i) is the i-th largest logit. With three classes, f_(3) is used in place of f_(4). With two
    classes, the loss is f_t - f_y.

    Source: Croce and Hein (2020), equation 7.
    """
    depth = logits.shape[1]
    gap = backend.one_hot(target, depth, logits) - backend.one_hot(label, depth, logits)
    if depth < 3:
        return _linear_loss(logits, gap)
    low = (_select_ranked(backend, logits, 2) + _select_ranked(backend, logits, 3)) / 2
    return _ratio_loss(backend, logits, gap, _select_ranked(backend, logits, 0) - low)
