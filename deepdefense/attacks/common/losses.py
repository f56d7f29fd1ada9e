"""What attacks drive up, as functions of the logits, each with its own derivative.

None of them saturates: where softmax has long rounded to 0 and 1, these still tell up from down. So
a network whose logits are large hides nothing behind them (Carlini and Wagner, 2017, section 5).
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
    """Per example: the `value` [b], above it the further from the label, and d value / d logits.

    The derivative is the `cotangent` [b k].
    """

    value: Array
    cotangent: Array


def loss_gradient(
    backend: Backend, f: Forward, point: Array, loss: Callable[[Array], Loss]
) -> tuple[Array, Array, Array]:
    """Logits [b k], the loss [b] and its gradient at a point, [b d] -> [b d]; all constant."""
    logits, fold = backend.class_gradients(f, point)
    value, cotangent = loss(logits)
    found = fold(
        lambda _, __, gradients: gradients[:, 0],
        backend.xp.zeros_like(point),
        rearrange(cotangent, "b k -> b 1 k"),
    )
    return logits, value, found


def _others(backend: Backend, logits: Array, label: Array) -> tuple[Array, Array]:
    """The label as one-hot [b k], and the logits with -inf in its place."""
    own = backend.one_hot(label, logits.shape[1], logits)
    return own, backend.xp.where(own > 0, backend.xp.zeros_like(logits) - math.inf, logits)


def _linear(logits: Array, cotangent: Array) -> Loss:
    return Loss(einsum(logits, cotangent, "b k, b k -> b"), cotangent)


def margin(backend: Backend, logits: Array, label: Array) -> Loss:
    """max_{k != y} f_k - f_y: positive where the label is missed."""
    own, others = _others(backend, logits, label)
    rival = backend.one_hot(backend.xp.argmax(others, 1), logits.shape[1], logits)
    return _linear(logits, rival - own)


def log_odds(backend: Backend, logits: Array, label: Array) -> Loss:
    """The log-odds against the label, log sum_{k != y} exp f_k - f_y.

    It is log(exp(CE) - 1): it rises where the cross-entropy does and its gradient has the same
    direction, so an attack of signs or unit steps that only compares values is the same attack.
    But CE's gradient carries the factor 1 - p_y, which float32 rounds to 0 once f_y leads by 17.
    """
    xp = backend.xp
    own, others = _others(backend, logits, label)
    top = reduce(others, "b k -> b 1", "max")
    powers = xp.exp(others - top)
    total = reduce(powers, "b k -> b 1", "sum")
    value = rearrange(top + xp.log(total), "b 1 -> b") - einsum(logits, own, "b k, b k -> b")
    return Loss(value, powers / total - own)


def _ratio(backend: Backend, logits: Array, gap: Array, scale: Array) -> Loss:
    """<gap, f> / <scale, f>, contrasts [b k] both; the gap alone where the scale is 0."""
    xp = backend.xp
    above, below = _linear(logits, gap), _linear(logits, scale)
    usable = below.value != 0
    value = divide(backend, above.value, below.value, where=usable, keep=True)
    pull = xp.where(usable, value, xp.zeros_like(value))
    slope = gap - rearrange(pull, "b -> b 1") * scale
    row, usable_row = (rearrange(each, "b -> b 1") for each in (below.value, usable))
    return Loss(value, divide(backend, slope, row, where=usable_row, keep=True))


def _ranked(backend: Backend, logits: Array, place: int) -> Array:
    """The logit in that place (0: the highest; the last, if there are fewer) as one-hot [b k]."""
    depth = logits.shape[1]
    order = backend.rank(logits, min(place + 1, depth))
    return backend.one_hot(order[:, -1], depth, logits)


def dlr(backend: Backend, logits: Array, label: Array) -> Loss:
    """The difference of logits ratio, (max_{k != y} f_k - f_y) / (f_(1) - f_(3)).

    f_(i) is the i-th largest. A shift or a scale of the logits changes nothing. With two classes,
    where the ratio is constant, it is the margin.

    Source: Croce and Hein (2020), "Reliable evaluation of adversarial robustness with an ensemble
    of diverse parameter-free attacks", equation 6.
    """
    gap = margin(backend, logits, label)
    if logits.shape[1] < 3:
        return gap
    scale = _ranked(backend, logits, 0) - _ranked(backend, logits, 2)
    return _ratio(backend, logits, gap.cotangent, scale)


def targeted_dlr(backend: Backend, logits: Array, label: Array, target: Array) -> Loss:
    """(f_t - f_y) / (f_(1) - (f_(3) + f_(4)) / 2), for the target class t [b].

    With three classes f_(3) stands for f_(4); with two it is the difference f_t - f_y.

    Source: Croce and Hein (2020), equation 7.
    """
    depth = logits.shape[1]
    gap = backend.one_hot(target, depth, logits) - backend.one_hot(label, depth, logits)
    if depth < 3:
        return _linear(logits, gap)
    low = (_ranked(backend, logits, 2) + _ranked(backend, logits, 3)) / 2
    return _ratio(backend, logits, gap, _ranked(backend, logits, 0) - low)
