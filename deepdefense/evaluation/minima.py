"""Confirms the perturbations that attacks find, and keeps the smallest one for each example."""

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
    """Return the norm ||delta||_p of each perturbation, computed in float64: [n ...] -> [n]."""
    sizes: Values = np.linalg.norm(_flatten_examples(delta).astype(np.float64), p, axis=1)
    return sizes


def _flatten_examples(x: HostArray) -> HostArray:
    return x.reshape(len(x), math.prod(x.shape[1:]))


@dataclass(frozen=True, eq=False)
class AttackOutcome:
    """The result of one attack on a subject's n examples.

    Attributes:
        attack: the attack and its settings.
        distance: [n], the size of the confirmed perturbation: inf where the attack failed or did
            not run, and 0 where the network misclassifies the unperturbed example.
        ran: a mask [n] of the examples that were attacked.
        rejected: the number of reported perturbed examples that `confirm_points` rejected. Each
            counts as a failure of the attack.
        seconds: the duration of the attack.
    """

    attack: PlannedAttack
    distance: Values
    ran: npt.NDArray[np.bool_]
    rejected: int
    seconds: float


@dataclass(frozen=True, eq=False)
class Minima:
    """The smallest confirmed perturbation of each of n examples, over the attacks run so far.

    Attributes:
        p: the order of the norm that measures perturbations.
        distance: [n], the size of the perturbation: 0 where the network misclassifies the
            unperturbed example, and inf where every attack failed.
        points: [n ...], the perturbed examples.
        predicted: [n], the classes that the network predicts for `points`.
        by: [n], the index in `outcomes` of the attack that found the perturbation, or -1.
        outcomes: the results of the attacks run so far.
    """

    p: float
    distance: Values
    points: HostArray
    predicted: npt.NDArray[np.int64]
    by: npt.NDArray[np.int64]
    outcomes: tuple[AttackOutcome, ...] = ()


def initial_minima(subject: Subject, p: float) -> Minima:
    """Return the minima before any attack has run.

    The perturbed examples are the unperturbed ones. Distances are 0 for misclassified examples and
    inf for all others.
    """
    return Minima(
        p=p,
        distance=np.where(subject.correct, math.inf, 0.0),
        points=subject.x.copy(),
        predicted=subject.logits.argmax(1).astype(np.int64),
        by=np.full(len(subject.x), -1),
    )


class ConfirmedPoints(NamedTuple):
    """The confirmed perturbed examples of one attack on one batch, as arrays for the cache.

    Attributes:
        rows: [m], the indices of the examples whose perturbations were confirmed.
        distance: [m], the sizes of the perturbations.
        points: [m ...], the perturbed examples.
        predicted: [m], the classes that the network predicts for `points`.
        rejected: [1], the number of perturbed examples that were not confirmed.
        seconds: [1], the duration of the attack.
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
    """Return the perturbed examples that the network misclassifies in a batch of one.

    They must also be finite, differ from the original examples, and lie within the bounds and eps.

    Args:
        subject: the network and the original examples.
        rows: [m], the indices of the original examples.
        points: [m ...], the perturbed examples that an attack reported as misclassified.
        eps: the radius of the attack, or None.
        p: the order of the norm that measures perturbations.
        begun: the time at which the attack started, by `time.perf_counter`.
    """
    distance = perturbation_size(points - subject.x[rows], p)
    confirmed = np.isfinite(_flatten_examples(points)).all(1)
    if subject.bounds is not None:
        low, high = subject.bounds
        inside = (points >= low) & (points <= high)
        # Preprocessing may round a coordinate of an example to just outside the bounds. Such a
        # coordinate is allowed if the attack did not change it.
        confirmed &= _flatten_examples(inside | (points == subject.x[rows])).all(1)
    confirmed &= distance > 0
    if eps is not None:
        # Rounding the coordinates of x + delta may make the perturbation slightly larger than eps.
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
    """Return new minima, in which a perturbation of one more attack replaces a larger one.

    Args:
        subject: the network and its examples.
        minima: the smallest perturbations so far.
        attack: the attack that ran.
        ran: the indices of the attacked examples.
        parts: the confirmed perturbed examples of each batch.
    """
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
