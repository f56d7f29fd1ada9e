"""The smallest confirmed perturbation of each example over all attacks."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from deepdefense.evaluation.presets import PlannedAttack
from deepdefense.evaluation.statistics import ROUNDING, Values
from deepdefense.evaluation.subject import HostArray, Subject

__all__ = [
    "AttackOutcome",
    "ConfirmedPoints",
    "Minima",
    "add_outcome",
    "confirm_points",
    "initial_minima",
    "perturbation_size",
]


def perturbation_size(delta: HostArray, p: float) -> Values:
    """Return ||delta||_p of each example in float64: [n ...] -> [n]."""
    sizes: Values = np.linalg.norm(_flatten_examples(delta).astype(np.float64), p, axis=1)
    return sizes


def _flatten_examples(x: HostArray) -> HostArray:
    return x.reshape(len(x), math.prod(x.shape[1:]))


@dataclass(frozen=True, eq=False)
class AttackOutcome:
    """The result of one attack on the n examples.

    `distance` [n] is that of the confirmed point: inf where the attack failed or did not run, and 0
    where the network misclassifies the example itself. `ran` [n] says which examples were attacked.
    `rejected` counts the reported points that were not confirmed; each is a failure of the attack.
    """

    attack: PlannedAttack
    distance: Values
    ran: npt.NDArray[np.bool_]
    rejected: int
    seconds: float


@dataclass(frozen=True, eq=False)
class Minima:
    """The smallest confirmed perturbation of each of the n examples so far.

    `distance` [n] is 0 where the network misclassifies the example itself, and inf where nothing
    fooled it. `points` [n ...] are the perturbed examples and `predicted` [n] their classes. `by`
    [n] is the attack that found the point, as an index into `outcomes`, or -1.
    """

    p: float
    distance: Values
    points: HostArray
    predicted: npt.NDArray[np.int64]
    by: npt.NDArray[np.int64]
    outcomes: tuple[AttackOutcome, ...] = ()


def initial_minima(subject: Subject, p: float) -> Minima:
    """Return the minima before any attack."""
    return Minima(
        p=p,
        distance=np.where(subject.correct, math.inf, 0.0),
        points=subject.x.copy(),
        predicted=subject.logits.argmax(1).astype(np.int64),
        by=np.full(len(subject.x), -1),
    )


class ConfirmedPoints(NamedTuple):
    """The confirmed points of an attack on one batch, as arrays that the cache can save.

    `rows` [m] are the indices of the examples; `distance` [m], `points` [m ...] and `predicted` [m]
    belong to them. `rejected` [1] counts the points that were not confirmed.
    """

    rows: HostArray
    distance: HostArray
    points: HostArray
    predicted: HostArray
    rejected: HostArray
    seconds: HostArray  # [1]


def confirm_points(
    subject: Subject,
    rows: HostArray,
    points: HostArray,
    *,
    eps: float | None,
    p: float,
    begun: float,
) -> ConfirmedPoints:
    """Keep the points [m ...], of the examples `rows` [m], that really fool the network.

    Such a point is finite, within the bounds and within eps, and the network misclassifies it in a
    batch of one. `begun` is the time at which the attack started.
    """
    distance = perturbation_size(points - subject.x[rows], p)
    confirmed = np.isfinite(_flatten_examples(points)).all(1)
    if subject.bounds is not None:
        low, high = subject.bounds
        inside = (points >= low) & (points <= high)
        # Preprocessing may round an example out of the bounds; it may then stay where it is.
        confirmed &= _flatten_examples(inside | (points == subject.x[rows])).all(1)
    confirmed &= distance > 0
    if eps is not None:
        # Rounding of each coordinate of x + delta may carry a point out of the ball.
        slack = np.finfo(points.dtype).eps * perturbation_size(points, p)
        confirmed &= distance <= eps * (1 + ROUNDING) + slack
        distance = np.minimum(distance, eps)
    logits = subject.predict(points, batch_size=1)
    predicted = logits.argmax(1)
    confirmed &= np.isfinite(logits).all(1) & (predicted != subject.y[rows])
    return ConfirmedPoints(
        rows[confirmed],
        distance[confirmed],
        points[confirmed],
        predicted[confirmed],
        np.array([(~confirmed).sum()]),
        np.array([time.perf_counter() - begun]),
    )


def add_outcome(
    subject: Subject,
    minima: Minima,
    attack: PlannedAttack,
    ran: HostArray,
    parts: Sequence[ConfirmedPoints],
) -> Minima:
    """Add the confirmed points of an attack on the examples `ran`, and keep the nearest points."""
    distance = np.where(subject.correct, math.inf, 0.0)
    tried = np.zeros(len(distance), bool)
    tried[ran] = True
    points, predicted, by = minima.points.copy(), minima.predicted.copy(), minima.by.copy()
    nearest = minima.distance.copy()
    for part in parts:
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
        rejected=sum(int(part.rejected[0]) for part in parts),
        seconds=sum(float(part.seconds[0]) for part in parts),
    )
    return replace(
        minima,
        distance=nearest,
        points=points,
        predicted=predicted,
        by=by,
        outcomes=(*minima.outcomes, outcome),
    )
