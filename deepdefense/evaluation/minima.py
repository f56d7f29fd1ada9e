"""The smallest perturbation found for each example, over all attacks, each claim verified."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from deepdefense.evaluation.cache import AttackCache
from deepdefense.evaluation.statistics import ROUNDING, Values, is_robust
from deepdefense.evaluation.subject import HostArray, Subject, expand_to
from deepdefense.evaluation.suite import PlannedAttack
from deepdefense.seam.progress import Watcher

__all__ = [
    "AttackOutcome",
    "Minima",
    "initial_minima",
    "perturbation_size",
    "run_suite",
    "run_transfer",
]

TRANSFER_SIZES = 12  # tried along each perturbation of the other network


def perturbation_size(delta: HostArray, p: float) -> Values:
    """||delta||_p of each example, in float64: [n ...] -> [n]."""
    found: Values = np.linalg.norm(_flatten_examples(delta).astype(np.float64), p, axis=1)
    return found


def _flatten_examples(x: HostArray) -> HostArray:
    return x.reshape(len(x), math.prod(x.shape[1:]))


@dataclass(frozen=True, eq=False)
class AttackOutcome:
    """What one attack did to the n examples.

    `distance` [n]: of the point it found that is verified; inf where it failed, or was not run, 0
    where there was nothing to do. `ran` [n]: where it was run; `rejected`: claims that did not
    hold, each counted as a failure.
    """

    attack: PlannedAttack
    distance: Values
    ran: npt.NDArray[np.bool_]
    rejected: int
    seconds: float


@dataclass(frozen=True, eq=False)
class Minima:
    """The smallest verified perturbation of each example so far.

    `distance` [n]: 0 where the network is wrong of itself, inf where nothing fooled it; `points`
    [n ...]; `predicted` [n]: what the point is taken for; `by` [n]: the attack that found it, as an
    index into `outcomes`, -1 for none.
    """

    p: float
    distance: Values
    points: HostArray
    predicted: npt.NDArray[np.int64]
    by: npt.NDArray[np.int64]
    outcomes: tuple[AttackOutcome, ...] = ()


def initial_minima(subject: Subject, p: float) -> Minima:
    """Before any attack."""
    return Minima(
        p=p,
        distance=np.where(subject.correct, math.inf, 0.0),
        points=subject.x.copy(),
        predicted=subject.logits.argmax(1).astype(np.int64),
        by=np.full(len(subject.x), -1),
    )


class ConfirmedPoints(NamedTuple):
    """Points that hold what an attack claimed of them.

    `rows` [m]: of which examples; `distance` [m], `points` [m ...], `predicted` [m]; how many
    claims were `rejected`, and the `seconds` it took, [1] both.
    """

    rows: HostArray
    distance: HostArray
    points: HostArray
    predicted: HostArray
    rejected: HostArray
    seconds: HostArray


def confirm_points(
    subject: Subject,
    rows: HostArray,
    points: HostArray,
    *,
    eps: float | None,
    p: float,
    begun: float,
) -> ConfirmedPoints:
    """Those of the claimed points [m ...], of examples `rows` [m], that are what they should be.

    They are finite, inside of the bounds and within eps, and the network is wrong on each, given it
    alone.
    """
    distance = perturbation_size(points - subject.x[rows], p)
    holds = np.isfinite(_flatten_examples(points)).all(1)
    if subject.bounds is not None:
        low, high = subject.bounds
        inside = (points >= low) & (points <= high)
        # An example outside by a rounding of its preprocessing may stay where it is.
        holds &= _flatten_examples(inside | (points == subject.x[rows])).all(1)
    holds &= distance > 0
    if eps is not None:
        # x + delta is off by a rounding of each coordinate, which is no fault of the attack.
        slack = np.finfo(points.dtype).eps * perturbation_size(points, p)
        holds &= distance <= eps * (1 + ROUNDING) + slack
        distance = np.minimum(distance, eps)
    logits = subject.predict(points, batch_size=1)
    predicted = logits.argmax(1)
    holds &= np.isfinite(logits).all(1) & (predicted != subject.y[rows])
    return ConfirmedPoints(
        rows[holds],
        distance[holds],
        points[holds],
        predicted[holds],
        np.array([(~holds).sum()]),
        np.array([time.perf_counter() - begun]),
    )


def add_outcome(
    subject: Subject,
    minima: Minima,
    attack: PlannedAttack,
    ran: HostArray,
    found: Sequence[ConfirmedPoints],
) -> Minima:
    """The minima with what an attack found on the examples `ran`: the nearer point stays."""
    distance = np.where(subject.correct, math.inf, 0.0)
    tried = np.zeros(len(distance), bool)
    tried[ran] = True
    points, predicted, by = minima.points.copy(), minima.predicted.copy(), minima.by.copy()
    nearest = minima.distance.copy()
    for part in found:
        rows = part.rows
        distance[rows] = np.minimum(distance[rows], part.distance)
        better = part.distance < nearest[rows]
        nearest[rows[better]] = part.distance[better]
        points[rows[better]] = part.points[better]
        predicted[rows[better]] = part.predicted[better]
        by[rows[better]] = len(minima.outcomes)
    outcome = AttackOutcome(
        attack,
        distance,
        tried,
        rejected=sum(int(part.rejected[0]) for part in found),
        seconds=sum(float(part.seconds[0]) for part in found),
    )
    return replace(
        minima,
        distance=nearest,
        points=points,
        predicted=predicted,
        by=by,
        outcomes=(*minima.outcomes, outcome),
    )


def run_attack(
    subject: Subject,
    minima: Minima,
    attack: PlannedAttack,
    rows: HostArray,
    *,
    seed: int,
    cache: AttackCache,
    watcher: Watcher,
) -> Minima:
    """Attack the examples `rows`, and keep what is nearer; claims that fail count as failures."""
    to_numpy = subject.backend.to_numpy
    parts, done = [], 0
    for batch in subject.iterate_batches(rows):
        saved = cache.get(attack, batch)
        if saved is None:
            begun = time.perf_counter()
            result = attack(subject, *subject.load_examples(batch), seed)
            claimed = np.flatnonzero(to_numpy(result.success))
            points = to_numpy(result.x)[claimed]
            part = confirm_points(
                subject, batch[claimed], points, eps=attack.eps, p=minima.p, begun=begun
            )
            cache.put(attack, batch, part._asdict())
        else:
            part = ConfirmedPoints(**saved)
        parts.append(part)
        done += len(batch)
        watcher.advance(done)
    return add_outcome(subject, minima, attack, rows, parts)


def run_transfer(subject: Subject, minima: Minima, other: Minima) -> Minima:
    """The perturbations that fool another network, tried on this one at sizes below its own."""
    fooled = subject.correct & np.isfinite(other.distance) & (other.distance > 0)
    left = rows = np.flatnonzero(fooled)
    attack = PlannedAttack(
        "transfer", "minimum-norm", (("sizes", TRANSFER_SIZES),), 0, TRANSFER_SIZES
    )
    own = np.where(np.isfinite(minima.distance), minima.distance, 4 * other.distance)
    parts = []
    for share in np.linspace(0, 0.99, TRANSFER_SIZES + 1)[1:]:
        begun = time.perf_counter()
        delta = other.points[left] - subject.x[left]
        factor = expand_to(share * own[left] / other.distance[left], delta)
        points = subject.displace(left, factor * delta)
        hit = subject.predict(points).argmax(1) != subject.y[left]
        parts.append(
            confirm_points(subject, left[hit], points[hit], eps=None, p=minima.p, begun=begun)
        )
        left = left[~hit]
    return add_outcome(subject, minima, attack, rows, parts)


def run_suite(
    subject: Subject,
    minima: Minima,
    planned: Sequence[PlannedAttack],
    *,
    seed: int,
    cache: AttackCache,
    watcher: Watcher,
) -> Minima:
    """Every attack in turn, on the examples it can still say something about.

    For the nearest point: all that the network gets right. Within eps: those not yet fooled that
    near; but the single step, a yardstick for the others, comes last and is tried on all.
    """
    for attack in planned:
        rows = np.flatnonzero(subject.correct)
        if attack.eps is not None and attack.name != "fgsm":
            rows = np.flatnonzero(is_robust(minima.distance, attack.eps))
        watcher.begin(str(attack), len(rows))
        minima = run_attack(subject, minima, attack, rows, seed=seed, cache=cache, watcher=watcher)
    return minima
