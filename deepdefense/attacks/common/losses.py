"""The losses that attacks maximise, as functions of the logits, each with its own derivative.

None of them saturates: they still have a gradient where softmax has rounded to 0 and 1. So large
logits do not hide a network's weakness (Carlini and Wagner, 2017, section 5).
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
    """A loss that grows away from the label, per example, and its derivative."""

    value: Array  # [b]
    cotangent: Array  # [b k], d value / d logits


def loss_gradient(
    backend: Backend, f: Forward, point: Array, loss: Callable[[Array], Loss]
) -> tuple[Array, Array, Array]:
    """Return logits [b k], loss [b] and its gradient [b d] at a point [b d]; all constant."""
    logits, fold = backend.class_gradients(f, point)
    value, cotangent = loss(logits)
    gradient = fold(
        lambda _, __, gradients: gradients[:, 0],
        backend.xp.zeros_like(point),
        rearrange(cotangent, "b k -> b 1 k"),
    )
    return logits, value, gradient


def _split_label(backend: Backend, logits: Array, label: Array) -> tuple[Array, Array]:
    """Return the label as one-hot [b k], and the logits with -inf in its place."""
    one_hot = backend.one_hot(label, logits.shape[1], logits)
    return one_hot, backend.xp.where(one_hot > 0, backend.xp.zeros_like(logits) - math.inf, logits)


def _linear_loss(logits: Array, cotangent: Array) -> Loss:
    return Loss(einsum(logits, cotangent, "b k, b k -> b"), cotangent)


def margin(backend: Backend, logits: Array, label: Array) -> Loss:
    """Return max_{k != y} f_k - f_y, positive where the prediction is not the label."""
    one_hot, others = _split_label(backend, logits, label)
    runner_up = backend.one_hot(backend.xp.argmax(others, 1), logits.shape[1], logits)
    return _linear_loss(logits, runner_up - one_hot)


def log_odds(backend: Backend, logits: Array, label: Array) -> Loss:
    """Return the log-odds against the label, log sum_{k != y} exp f_k - f_y.

    It is log(exp(CE) - 1): it rises where the cross-entropy CE does, and its gradient has the same
    direction. So for attacks that use only signs or unit vectors of the gradient and compare
    values, it is equivalent. But the gradient of CE carries the factor 1 - p_y, which float32
    rounds to 0 once f_y leads by 17.
    """
    xp = backend.xp
    one_hot, others = _split_label(backend, logits, label)
    top = reduce(others, "b k -> b 1", "max")
    powers = xp.exp(others - top)
    total = reduce(powers, "b k -> b 1", "sum")
    value = rearrange(top + xp.log(total), "b 1 -> b") - einsum(logits, one_hot, "b k, b k -> b")
    return Loss(value, powers / total - one_hot)


def _ratio_loss(backend: Backend, logits: Array, gap: Array, scale: Array) -> Loss:
    """Return <gap, f> / <scale, f> for cotangents [b k], or <gap, f> where <scale, f> is 0."""
    xp = backend.xp
    above, below = _linear_loss(logits, gap).value, _linear_loss(logits, scale).value
    usable = below != 0
    value = divide(backend, above, below, where=usable, keep=True)
    # By the quotient rule, d value = (gap - value scale) / <scale, f>.
    factor = rearrange(xp.where(usable, value, xp.zeros_like(value)), "b -> b 1")
    below, usable = (rearrange(each, "b -> b 1") for each in (below, usable))
    return Loss(value, divide(backend, gap - factor * scale, below, where=usable, keep=True))


def _select_ranked(backend: Backend, logits: Array, place: int) -> Array:
    """Return the class of that place as one-hot [b k]: 0 for the highest logit.

    If there are fewer classes, it is the last one.
    """
    depth = logits.shape[1]
    order = backend.rank(logits, min(place + 1, depth))
    return backend.one_hot(order[:, -1], depth, logits)


def dlr(backend: Backend, logits: Array, label: Array) -> Loss:
    """Return the difference of logits ratio, (max_{k != y} f_k - f_y) / (f_(1) - f_(3)).

    f_(i) is the i-th largest. A shift or a scale of the logits changes nothing. With two classes,
    where the ratio is constant, it is the margin.

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

    With three classes f_(3) stands for f_(4); with two it is the difference f_t - f_y.

    Source: Croce and Hein (2020), equation 7.
    """
    depth = logits.shape[1]
    gap = backend.one_hot(target, depth, logits) - backend.one_hot(label, depth, logits)
    if depth < 3:
        return _linear_loss(logits, gap)
    low = (_select_ranked(backend, logits, 2) + _select_ranked(backend, logits, 3)) / 2
    return _ratio_loss(backend, logits, gap, _select_ranked(backend, logits, 0) - low)
