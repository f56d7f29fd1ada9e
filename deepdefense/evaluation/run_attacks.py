"""Runs the planned attacks on a network, caches their results, and reports the progress."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from deepdefense.evaluation.cache import AttackCache
from deepdefense.evaluation.minima import (
    ConfirmedPoints,
    Minima,
    add_outcome,
    confirm_points,
)
from deepdefense.evaluation.presets import PlannedAttack
from deepdefense.evaluation.statistics import is_robust
from deepdefense.evaluation.subject import HostArray, Subject, expand_to
from deepdefense.seam.frozen_dict import FrozenDict
from deepdefense.seam.progress import Watcher

__all__ = ["AttackRunner", "run_transfer"]

TRANSFER_SIZES = 12  # each perturbation of the other network is tried at this many sizes


@dataclass(frozen=True)
class AttackRunner:
    """Runs attacks on subjects, all with the same seed.

    `cache` saves the result of each attack on each batch, and `watcher` receives the progress.
    """

    seed: int
    cache: AttackCache
    watcher: Watcher

    def run_suite(
        self, subject: Subject, minima: Minima, planned: Sequence[PlannedAttack]
    ) -> Minima:
        """Return new minima, in which perturbations of the planned attacks replace larger ones.

        Minimum-norm attacks run on all correctly classified examples. So does FGSM, because the
        checks compare the other attacks with it. The other fixed-budget attacks run only on the
        examples for which no earlier attack found a perturbation within their eps.
        """
        for attack in planned:
            rows = np.flatnonzero(subject.correct)
            if attack.eps is not None and attack.name != "fgsm":
                rows = np.flatnonzero(is_robust(minima.distance, attack.eps))
            self.watcher.begin(str(attack), len(rows))
            minima = self._run_attack(subject, minima, attack, rows)
        return minima

    def _run_attack(
        self, subject: Subject, minima: Minima, attack: PlannedAttack, rows: HostArray
    ) -> Minima:
        to_numpy = subject.backend.to_numpy
        parts, done = [], 0
        for batch in subject.iterate_batches(rows):
            saved = self.cache.get(attack, batch)
            if saved is None:
                begun = time.perf_counter()
                result = attack(subject, *subject.load_examples(batch), self.seed)
                fooled = np.flatnonzero(to_numpy(result.success))
                points = to_numpy(result.x)[fooled]
                part = confirm_points(
                    subject, batch[fooled], points, eps=attack.eps, p=minima.p, begun=begun
                )
                self.cache.put(attack, batch, part._asdict())
            else:
                part = ConfirmedPoints(**saved)
            parts.append(part)
            done += len(batch)
            self.watcher.advance(done)
        return add_outcome(subject, minima, attack, rows, parts)


def run_transfer(subject: Subject, minima: Minima, other: Minima) -> Minima:
    """Attack the network of `subject` with perturbations that were found for another network.

    Return new minima, in which a transferred perturbation replaces a larger one. Each perturbation
    is tried at `TRANSFER_SIZES` increasing sizes until the network misclassifies the example. All
    sizes are below the example's distance in `minima`, or, if that is infinite, below four times
    its distance in `other`.

    Args:
        subject: the network to attack, and its examples.
        minima: the smallest perturbations found for this network.
        other: the smallest perturbations found for the other network.
    """
    fooled = subject.correct & np.isfinite(other.distance) & (other.distance > 0)
    left = rows = np.flatnonzero(fooled)
    settings = FrozenDict(sizes=TRANSFER_SIZES)
    attack = PlannedAttack("transfer", "minimum-norm", settings, 0, TRANSFER_SIZES)
    limit = np.where(np.isfinite(minima.distance), minima.distance, 4 * other.distance)
    parts = []
    for share in np.linspace(0, 0.99, TRANSFER_SIZES + 1)[1:]:
        begun = time.perf_counter()
        delta = other.points[left] - subject.x[left]
        factor = expand_to(share * limit[left] / other.distance[left], delta)
        points = subject.displace(left, factor * delta)
        hit = subject.predict(points).argmax(1) != subject.y[left]
        parts.append(
            confirm_points(subject, left[hit], points[hit], eps=None, p=minima.p, begun=begun)
        )
        left = left[~hit]
    return add_outcome(subject, minima, attack, rows, parts)
