"""Measure the distance of each example to the nearest adversarial point, by minimum-norm attacks.

`measure_distances` is fast enough to compare the checkpoints of a training run. `dd.evaluate` runs
more attacks and checks, and takes longer.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from deepdefense.attacks.common.problem import Perturbation
from deepdefense.attacks.ddn import ddn
from deepdefense.attacks.deepfool import deepfool
from deepdefense.attacks.fmn import fmn
from deepdefense.attacks.superdeepfool import superdeepfool
from deepdefense.evaluation.minima import perturbation_size
from deepdefense.evaluation.statistics import Values, is_correct
from deepdefense.evaluation.subject import HostArray
from deepdefense.geometry.bounds import Bounds
from deepdefense.seam.choosing import to_host
from deepdefense.seam.contract import Array, Backend, Forward, Model
from deepdefense.seam.validation import call_model

__all__ = ["measure_distances", "name_distance_attacks"]

DISTANCE_STEPS = 20  # the default number of gradients that DDN and FMN compute for each example
ROUNDS_SHARE = (
    0.15  # SuperDeepFool's rounds as a share of the steps: one round costs many gradients
)

Attack = Callable[..., Perturbation]


def measure_distances(
    backend: Backend,
    model: Model,
    x: HostArray,
    y: HostArray,
    *,
    p: float = 2.0,
    bounds: Bounds | None = None,
    steps: int = DISTANCE_STEPS,
    batch_size: int = 500,
    progress: Callable[[int], object] = lambda done: None,
) -> tuple[Values, npt.NDArray[np.bool_]]:
    """Return the distance of each example to the nearest adversarial point, and a mask `correct`.

    Both have the shape [n]. The distance is the p-norm of the smallest perturbation with which an
    attack changes the predicted class. It is 0 for examples that the network misclassifies, and inf
    for examples on which every attack fails. `correct` marks the examples that the network
    classifies correctly.

    The attacks are DDN and FMN for p = 2, FMN and SuperDeepFool for p = inf, and DeepFool and
    SuperDeepFool for other p. A point that an attack returns counts only if the network, called
    again, misclassifies it. No attack draws random numbers.

    All batches but the last have the same shape, also if networks differ in the examples that they
    misclassify. Frameworks therefore do not compile again for each network.

    Args:
        backend: the backend of the model's framework.
        model: a batch [b ...] -> logits [b k], called in inference mode.
        x: examples [n ...] in host memory; batches are placed on the model's device.
        y: labels [n].
        p: the order of the norm.
        bounds: (low, high), the range of perturbed examples, or None.
        steps: the number of gradients that DDN and FMN compute for each example.
        batch_size: the number of examples in a batch.
        progress: called after each batch with the number of examples measured so far.

    Raises:
        InputError: the model, the examples, the labels and the bounds do not fit together.
    """
    labels, parts, masks = to_host(y), [np.zeros(0)], [np.zeros(0, bool)]
    attacks = _list_attacks(p, steps)
    with backend.precise(), backend.inference(model) as f:
        for start in range(0, len(x), batch_size):
            batch = backend.asarray(x[start : start + batch_size], model)
            part = labels[start : start + batch_size]
            logits = backend.to_numpy(call_model(f, batch))
            correct = is_correct(logits, part)
            distance = np.where(correct, math.inf, 0.0)
            for attack in attacks.values():
                native = backend.index(part, logits.shape[1], batch)
                result = attack(f, batch, native, bounds=bounds)
                distance = np.minimum(distance, _confirm_sizes(backend, f, batch, part, result, p))
            parts.append(distance)
            masks.append(correct)
            progress(start + len(part))
    return np.concatenate(parts), np.concatenate(masks)


def name_distance_attacks(p: float) -> tuple[str, ...]:
    """Return the names of the attacks that `measure_distances` runs in the p-norm.

    >>> name_distance_attacks(2)
    ('DDN', 'FMN')
    """
    return tuple(_list_attacks(p, 1))


def _list_attacks(p: float, steps: int) -> dict[str, Attack]:
    """Return the attacks in the p-norm by name, with their settings, strongest first."""
    rounds = max(1, round(ROUNDS_SHARE * steps))
    if p == 2:
        return {"DDN": partial(ddn, steps=steps), "FMN": partial(fmn, p=2, steps=steps)}
    if p == math.inf:
        return {
            "FMN": partial(fmn, p=p, steps=steps),
            "SuperDeepFool": partial(superdeepfool, p=p, steps=rounds),
        }
    return {
        "SuperDeepFool": partial(superdeepfool, p=p, steps=rounds),
        "DeepFool": partial(deepfool, p=p),
    }


def _confirm_sizes(
    backend: Backend, f: Forward, x: Array, y: HostArray, result: Perturbation, p: float
) -> Values:
    """Return the sizes [b] of an attack's perturbations, or inf where the network is not fooled.

    An unperturbed point does not count.
    """
    logits: Any = backend.to_numpy(backend.forward(f, result.x))
    size = perturbation_size(backend.to_numpy(result.x) - backend.to_numpy(x), p)
    fooled = backend.to_numpy(result.success) & np.isfinite(logits).all(1)
    confirmed = fooled & (logits.argmax(1) != y) & np.isfinite(size) & (size > 0)
    return np.where(confirmed, size, math.inf)
