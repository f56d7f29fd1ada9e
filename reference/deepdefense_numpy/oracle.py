"""Deep Defense, one example at a time, as the papers write it: an oracle for tests."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple, TypedDict, Unpack

import numpy as np
import numpy.typing as npt

from deepdefense_numpy.networks import Array, TinyNetwork, central_differences
from deepdefense_numpy.norms import distance, dual, norm, steepest

EPSILON = float(np.finfo(np.float64).eps)


@dataclass(frozen=True, eq=False)
class Walk:
    """Where a search went: `shift` = sum_i r_i, `delta` = (1 + overshoot) shift (see `deepfool`).

    `path` holds the (base, target) pair of classes of every step taken.
    """

    delta: Array
    shift: Array
    success: bool
    steps: int
    path: tuple[tuple[int, int], ...]


class Options(TypedDict, total=False):
    """The keywords of `penalty`."""

    lam: float
    c: float
    d: float
    p: float
    steps: int
    overshoot: float
    candidates: int


def finite(v: Array) -> bool:
    """Whether every entry of v is finite."""
    return all(math.isfinite(float(t)) for t in v.flat)


def argmax(scores: Array) -> int:
    """The highest-scoring class, the first on ties."""
    best = 0
    for j in range(1, len(scores)):
        if scores[j] > scores[best]:
            best = j
    return best


def shut(point: Array, w: Array, bounds: tuple[float, float]) -> npt.NDArray[np.bool_]:
    """Where a point is at its bound, and w leads out of it."""
    return (point <= bounds[0]) & (w < 0) | (point >= bounds[1]) & (w > 0)


def deepfool(
    network: TinyNetwork,
    x: Array,
    y: int | None = None,
    *,
    p: float = 2.0,
    steps: int = 50,
    overshoot: float = 0.02,
    candidates: int = 10,
    bounds: tuple[float, float] | None = None,
) -> Walk:
    """DeepFool (Moosavi-Dezfooli, Fawzi and Frossard, 2016) on one example x of any shape.

    r_i = |g_l| / ||w_l||_q^q |w_l|^(q-1) sign(w_l), where l = argmin_j |g_j| / ||w_j||_q,
    g_j = f_j - f_base and w_j = grad_x g_j at x + shift; the base class is y, or the prediction.
    A step is at least 16 machine epsilons of ||x||_p long. Within bounds and for p < 2, w_j has
    zeros where x + shift is at its bound and would leave it. If a step is no longer than a tenth of
    the shift, and the bounds leave its end short of the plane even with 0.9 of the overshoot, it
    goes on once, by as much as is lacking, along the coordinates that are not at their bound there.
    """
    zero = np.zeros(x.shape, dtype=np.float64)
    if not finite(x) or not finite(network.logits(x)):
        return Walk(zero, zero, False, 0, ())
    clean = network.logits(x)
    if y is not None and argmax(clean) != y:
        return Walk(zero, zero, True, 0, ())
    base = argmax(clean)
    ranked = sorted(range(len(clean)), key=lambda j: (-float(clean[j]), j))[:candidates]
    shortest = 16.0 * EPSILON * norm(x, p)

    delta, shift, path = zero, zero, list[tuple[int, int]]()
    while len(path) < steps:
        scores, gradients = network.logits(x + shift), network.class_gradients(x + shift)
        if bounds is not None and p < 2:
            ways = gradients - gradients[base]
            gradients = np.where(shut(x + shift, ways, bounds), gradients[base], gradients)
        nearest, target = math.inf, None
        for j in ranked:
            if j != base:
                away = distance(float(scores[j] - scores[base]), gradients[j] - gradients[base], p)
                if away < nearest:
                    nearest, target = away, j
        if target is None:
            break
        r = max(nearest, shortest) * steepest(gradients[target] - gradients[base], p)
        path.append((base, target))
        before, shift = shift, shift + r
        delta = (1.0 + overshoot) * shift
        if bounds is not None:
            shift = np.clip(x + shift, bounds[0], bounds[1]) - x
            delta = np.clip(x + (1.0 + overshoot) * shift, bounds[0], bounds[1]) - x
            tried = np.clip(x + (1.0 + 0.9 * overshoot) * shift, bounds[0], bounds[1])
            w = gradients[target] - gradients[base]
            short = float(scores[target] - scores[base]) + float(np.sum(w * (tried - x - before)))
            w = np.where(shut(tried, w, bounds), 0.0, w)
            away = distance(short, w, p)
            if norm(r, p) <= 0.1 * norm(before, p) and short < 0.0 and math.isfinite(away):
                shift = np.clip(x + shift + away * steepest(w, p), bounds[0], bounds[1]) - x
                delta = np.clip(x + (1.0 + overshoot) * shift, bounds[0], bounds[1]) - x
        tested = network.logits(x + delta)
        if finite(tested) and argmax(tested) != base:
            return Walk(delta, shift, True, len(path), tuple(path))
    return Walk(delta, shift, False, len(path), tuple(path))


def reach(
    network: TinyNetwork, x: Array, y: int, *, p: float, steps: int, overshoot: float
) -> Walk:
    """The search for a misclassified x, toward its label (Yan, Guo and Zhang, 2018).

    As `deepfool`, with y as the only target and, as base, the best class other than y at each
    iterate x + shift; done once x + (1 + overshoot) shift is classified as y.
    """
    zero = np.zeros(x.shape, dtype=np.float64)
    if not finite(x) or not finite(network.logits(x)):
        return Walk(zero, zero, False, 0, ())
    if argmax(network.logits(x)) == y:
        return Walk(zero, zero, True, 0, ())
    shortest = 16.0 * EPSILON * norm(x, p)

    delta, shift, path = zero, zero, list[tuple[int, int]]()
    while len(path) < steps:
        scores, gradients = network.logits(x + shift), network.class_gradients(x + shift)
        base = argmax(np.where(np.arange(len(scores)) == y, -math.inf, scores))
        w = gradients[y] - gradients[base]
        away = distance(float(scores[y] - scores[base]), w, p)
        if not math.isfinite(away):
            break
        path.append((base, int(y)))
        shift = shift + max(away, shortest) * steepest(w, p)
        delta = (1.0 + overshoot) * shift
        tested = network.logits(x + delta)
        if finite(tested) and argmax(tested) == y:
            return Walk(delta, shift, True, len(path), tuple(path))
    return Walk(delta, shift, False, len(path), tuple(path))


class Landing(NamedTuple):
    """Where `approach` ends: its shift, |dg| / d||shift||_p there, and the classes of its steps."""

    shift: Array
    slope: float
    path: tuple[tuple[int, int], ...]


def within(
    x: Array, gap: float, w: Array, p: float, bounds: tuple[float, float]
) -> tuple[Array, float]:
    """The shortest r with <w, r> = |gap| and x + r within bounds, and |dg| / d||r||_p.

    Were there no bounds, r would be t |w|^(q-1) sign w; with them it is that, clipped, for a larger
    t, p > 1. Once by the way without bounds, and three times by what is then lacking.
    """
    point, free = x, w
    for _ in range(4):
        lacking = max(abs(gap) - float(np.sum(w * (point - x))), 0.0)
        if np.any(free != 0.0):
            point = np.clip(point + distance(lacking, free, p) * steepest(free, p), *bounds)
        free = np.where(shut(point, w, bounds), 0.0, w)
    r = point - x
    if not np.any(free != 0.0) or not np.any(r != 0.0):
        return r, 0.0
    more = 1e-5 * norm(r, p) * steepest(free, p)
    return r, 2.0 * float(np.sum(w * more)) / (norm(r + more, p) - norm(r - more, p))


def approach(
    network: TinyNetwork,
    x: Array,
    y: int,
    *,
    p: float,
    steps: int,
    candidates: int,
    bounds: tuple[float, float] | None = None,
) -> Landing:
    """Steps that all set out from x, to the nearest point of the plane the last one has found.

    The plane at x + r is g + <w, r' - r> = 0 in r', with g and w = grad g there; of the candidates'
    planes the nearest to x, whatever the bounds. A right example leaves y, a wrong one goes to y
    from the best other.
    """
    clean = network.logits(x)
    right = argmax(clean) == y
    ranked = sorted(range(len(clean)), key=lambda j: (-float(clean[j]), j))[:candidates]
    shortest = 16.0 * EPSILON * norm(x, p)
    shift, slope = np.zeros(x.shape, dtype=np.float64), 0.0
    path = list[tuple[int, int]]()
    for _ in range(steps):
        scores, gradients = network.logits(x + shift), network.class_gradients(x + shift)
        rival = argmax(np.where(np.arange(len(scores)) == y, -math.inf, scores))
        pairs = [(y, j) for j in ranked if j != y] if right else [(rival, y)]
        nearest, found = math.inf, None
        for base, target in pairs:
            w = gradients[target] - gradients[base]
            away = distance(float(scores[target] - scores[base]) - float((w * shift).sum()), w, p)
            if away < nearest:
                nearest, found = away, (base, target, w)
        if found is None:
            break
        base, target, w = found
        length, rise = max(nearest, shortest), norm(w, dual(p))
        there, slope_there = length * steepest(w, p), rise
        if bounds is not None:
            there, slope_there = within(x, length * rise, w, p, bounds)
            if slope_there == 0.0:
                break
        shift, slope = there, slope_there
        path.append((base, target))
    return Landing(shift, slope, tuple(path))


def chord(network: TinyNetwork, x: Array, landing: Landing, p: float) -> tuple[float, Array]:
    """The rest of the way from where `approach` lands, with its slope (the chord method).

    With r where it lands, the length is ||r||_p - g(b) / slope at b = x + r, or ||r||_p if that is
    not positive; without bounds the slope is ||w||_q, w the normal it went along. Returns the
    length and b.
    """
    base, target = landing.path[-1]
    b = x + landing.shift
    scores = network.logits(b)
    length = norm(landing.shift, p) - float(scores[target] - scores[base]) / landing.slope
    return (length if length > 0 else norm(landing.shift, p)), b


def chord_penalty(
    network: TinyNetwork,
    x: Array,
    y: int,
    *,
    lam: float = 15.0,
    c: float = 25.0,
    d: float = 5.0,
    p: float = 2.0,
    steps: int = 1,
    overshoot: float = 0.02,
    candidates: int = 2,
    bounds: tuple[float, float] | None = None,
) -> tuple[float, Array]:
    """The penalty of one example by `chord`, and its gradient with b and the slope held fixed."""
    zero = np.zeros_like(network.parameters())
    if not has_rho(network, x):
        return 0.0, zero
    right = argmax(network.logits(x)) == y
    landing = approach(network, x, y, p=p, steps=steps, candidates=candidates, bounds=bounds)
    if not landing.path:
        return lam, zero
    length, b = chord(network, x, landing, p)
    base, target = landing.path[-1]
    relative = (1.0 + overshoot) * length / norm(x, p)
    d_g = central_differences(network, lambda n: float(n.logits(b)[target] - n.logits(b)[base]))
    d_rho = (1.0 + overshoot) * -d_g / landing.slope / norm(x, p)
    value, slope_in_rho = price(right, relative, lam, c, d)
    return value, slope_in_rho * d_rho


def rho(delta: Array, x: Array, p: float) -> float:
    """The relative size ||delta||_p / ||x||_p, and 0 where x is all zero."""
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
    """The regulariser of Deep Defense (Yan, Guo and Zhang, 2018) for one example.

    lam exp(-c rho) if x is correctly classified, and lam exp(+d rho) if not, the latter continued
    linearly beyond d rho = 10: e^10 (1 + d rho - 10). 0 where x has no rho: not finite, or zero.
    """
    if not has_rho(network, x):
        return 0.0
    right = argmax(network.logits(x)) == y
    if right:
        walk = deepfool(network, x, y, p=p, steps=steps, overshoot=overshoot, candidates=candidates)
    else:
        walk = reach(network, x, y, p=p, steps=steps, overshoot=overshoot)
    return price(right, rho(walk.delta, x, p), lam, c, d)[0]


def price(right: bool, relative: float, lam: float, c: float, d: float) -> tuple[float, float]:
    """The regulariser at a given rho, as `penalty` has it, and its derivative in rho."""
    if right:
        value = lam * math.exp(-c * relative)
        return value, -c * value
    z = d * relative
    value = lam * (math.exp(z) if z <= 10.0 else math.exp(10.0) * (1.0 + z - 10.0))
    return value, d * lam * math.exp(min(z, 10.0))


def has_rho(network: TinyNetwork, x: Array) -> bool:
    """Whether x and its logits are finite and x is not all zero."""
    return finite(x) and finite(network.logits(x)) and bool(np.any(x != 0.0))


def cross_entropy(scores: Array, y: int) -> float:
    """-log softmax(f)_y = m + log sum_j exp(f_j - m) - f_y, with m = max_j f_j."""
    m = max(float(t) for t in scores)
    return m + math.log(math.fsum(math.exp(float(t) - m) for t in scores)) - float(scores[y])


def objective(
    network: TinyNetwork, batch: Array, labels: Iterable[int], **same: Unpack[Options]
) -> float:
    """The mean over a batch [b ...] of cross-entropy + penalty (Yan, Guo and Zhang, 2018)."""
    total = 0.0
    for x, y in zip(batch, labels, strict=True):
        total += cross_entropy(network.logits(x), y) + penalty(network, x, y, **same)
    return total / len(batch)


def weight_gradient(
    network: TinyNetwork, batch: Array, labels: Iterable[int], **same: Unpack[Options]
) -> Array:
    """The gradient of `objective` over `network.parameters()`, by central differences."""
    fixed = list(labels)
    return central_differences(network, lambda n: objective(n, batch, fixed, **same))


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
    """The gradient of `penalty` by the envelope theorem (cf. Ding et al., 2020).

    d||s||_p/dW = -dg(b)/dW / ||grad_x g(b)||_q at b = x + s held fixed, where s is the shift and
    g = f_target - f_base for the last pair of the path; d rho = (1 + overshoot) d||s||_p / ||x||_p.
    """
    zero = np.zeros_like(network.parameters())
    if not has_rho(network, x):
        return zero
    right = argmax(network.logits(x)) == y
    if right:
        walk = deepfool(network, x, y, p=p, steps=steps, overshoot=overshoot, candidates=candidates)
    else:
        walk = reach(network, x, y, p=p, steps=steps, overshoot=overshoot)
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
    return price(right, rho(walk.delta, x, p), lam, c, d)[1] * d_rho
