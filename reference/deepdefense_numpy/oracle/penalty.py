"""Compute the penalty of Deep Defense for one example, the objective, and their gradients."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TypedDict, Unpack

import numpy as np

from deepdefense_numpy.networks import Array, TinyNetwork, central_differences
from deepdefense_numpy.norms import dual, norm
from deepdefense_numpy.oracle.search import argmax, deepfool, is_finite, reach_label

__all__ = [
    "Options",
    "evaluate_penalty",
    "has_rho",
    "implicit_weight_gradient",
    "objective",
    "penalty",
    "rho",
    "weight_gradient",
]


class Options(TypedDict, total=False):
    """The keyword arguments that `objective` and `weight_gradient` pass on to `penalty`."""

    lam: float
    c: float
    d: float
    p: float
    steps: int
    overshoot: float
    candidates: int


def rho(delta: Array, x: Array, p: float) -> float:
    """Return the relative size ||delta||_p / ||x||_p, or 0 if x is all zero."""
    size = norm(x, p)
    return 0.0 if size == 0.0 else norm(delta, p) / size


def penalty(
    network: TinyNetwork,
    x: Array,
    y: int,
    *,
    lam: float = 15.0,
    c: float = 25.0,
    d: float = 5.0,
    p: float = 2.0,
    steps: int = 5,
    overshoot: float = 0.02,
    candidates: int = 10,
) -> float:
    """Return the regulariser of Deep Defense (Yan, Guo and Zhang, 2018) for one example.

    Let rho be the relative size of the perturbation that the search finds. The penalty is
    lam * exp(-c * rho) if x is correctly classified, and lam * exp(d * rho) if x is misclassified.
    For d * rho > 10, where the second exponential could overflow, its tangent at d * rho = 10
    replaces it: lam * e^10 * (1 + d * rho - 10). The penalty is 0 if x or its logits are not
    finite, or if x is all zero.
    """
    if not has_rho(network, x):
        return 0.0
    right = argmax(network.logits(x)) == y
    if right:
        walk = deepfool(network, x, y, p=p, steps=steps, overshoot=overshoot, candidates=candidates)
    else:
        walk = reach_label(network, x, y, p=p, steps=steps, overshoot=overshoot)
    return evaluate_penalty(right, rho(walk.delta, x, p), lam, c, d)[0]


def evaluate_penalty(
    right: bool, relative: float, lam: float, c: float, d: float
) -> tuple[float, float]:
    """Return the penalty for a given value of rho, and its derivative in rho (see `penalty`)."""
    if right:
        value = lam * math.exp(-c * relative)
        return value, -c * value
    z = d * relative
    value = lam * (math.exp(z) if z <= 10.0 else math.exp(10.0) * (1.0 + z - 10.0))
    return value, d * lam * math.exp(min(z, 10.0))


def has_rho(network: TinyNetwork, x: Array) -> bool:
    """Return whether rho is defined, that is, x and its logits are finite and x is not all zero."""
    return is_finite(x) and is_finite(network.logits(x)) and bool(np.any(x != 0.0))


def cross_entropy(scores: Array, y: int) -> float:
    """Return -log softmax(f)_y = m + log sum_j exp(f_j - m) - f_y, with m = max_j f_j."""
    m = max(float(t) for t in scores)
    return m + math.log(math.fsum(math.exp(float(t) - m) for t in scores)) - float(scores[y])


def objective(
    network: TinyNetwork, batch: Array, labels: Iterable[int], **options: Unpack[Options]
) -> float:
    """Return the mean of cross-entropy + penalty over a batch [b ...].

    Source: Yan, Guo and Zhang (2018).
    """
    total = 0.0
    for x, y in zip(batch, labels, strict=True):
        total += cross_entropy(network.logits(x), y) + penalty(network, x, y, **options)
    return total / len(batch)


def weight_gradient(
    network: TinyNetwork, batch: Array, labels: Iterable[int], **options: Unpack[Options]
) -> Array:
    """Return the gradient of `objective` in `network.parameters()`, by central differences."""
    labels = list(labels)
    return central_differences(network, lambda n: objective(n, batch, labels, **options))


def implicit_weight_gradient(
    network: TinyNetwork,
    x: Array,
    y: int,
    *,
    lam: float = 15.0,
    c: float = 25.0,
    d: float = 5.0,
    p: float = 2.0,
    steps: int = 5,
    overshoot: float = 0.02,
    candidates: int = 10,
) -> Array:
    """Return the gradient of `penalty` by the envelope theorem (cf. Ding et al., 2020).

    Let s be the shift that the search returns, b = x + s, and g = f_target - f_base the gap of the
    last step. With b held fixed, the derivatives in the parameters W are

        d||s||_p/dW = -(dg(b)/dW) / ||grad_x g(b)||_q,
        d rho/dW = (1 + overshoot) (d||s||_p/dW) / ||x||_p.

    The result is d rho/dW times the derivative of the penalty in rho.
    """
    zero = np.zeros_like(network.parameters())
    if not has_rho(network, x):
        return zero
    right = argmax(network.logits(x)) == y
    if right:
        walk = deepfool(network, x, y, p=p, steps=steps, overshoot=overshoot, candidates=candidates)
    else:
        walk = reach_label(network, x, y, p=p, steps=steps, overshoot=overshoot)
    if not walk.path:
        return zero
    base, target = walk.path[-1]
    b = x + walk.shift
    normals = network.class_gradients(b)
    steepness = norm(normals[target] - normals[base], dual(p))
    if steepness == 0.0:
        return zero
    d_g = central_differences(network, lambda n: float(n.logits(b)[target] - n.logits(b)[base]))
    d_rho = (1.0 + overshoot) * -d_g / steepness / norm(x, p)
    return evaluate_penalty(right, rho(walk.delta, x, p), lam, c, d)[1] * d_rho
