"""Fit c and d of the Deep Defense penalty to a network, from its rho before training."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from deepdefense.defenses.deep_defense import DeepDefense
from deepdefense.errors import InputError
from deepdefense.evaluation.rho_protocol import RHO_ATTACK, measure_rho
from deepdefense.seam.choosing import backend_for, framework_of, to_host
from deepdefense.seam.contract import Backend
from deepdefense.seam.validation import check_labels, check_number

__all__ = ["calibrate", "fit_penalty"]

# The default of the product c * (median rho before training). With the paper's settings, c * rho is
# 2.8 for the MLP and 5.1 for LeNet. This default is smaller, because training increases rho.
STEEPNESS = 1.5

# The ratio d / c. The paper's settings for MNIST are d = 5 and c = 25.
D_OVER_C = 0.2

# The largest number of training examples on which rho is measured.
CALIBRATION_EXAMPLES = 1000


def calibrate(
    model: Any,
    x: Any,
    y: Any,
    defense: DeepDefense | None = None,
    *,
    steepness: float = STEEPNESS,
    seed: int = 0,
) -> DeepDefense:
    """Return a Deep Defense penalty whose c and d are fitted to the network.

        c = steepness / median rho_p,    d = c / 5

    D is DeepFool's perturbation of an example x, rho_p = ||D||_p / ||x||_p, and p is the `p` of
    `defense`. The median is over the examples for which DeepFool finds a boundary.

    The exponents c rho and d rho of the penalty should be of order 1. No fixed c achieves this,
    because the typical rho depends on data and network.

    Args:
        model: a trained classifier of any framework.
        x: training examples [n ...]. rho is measured on at most 1,000 of them, chosen at random.
        y: their labels [n].
        defense: a `DeepDefense` whose settings other than c and d are kept; None:
            `DeepDefense()`.
        steepness: the product c * (median rho before training). A smaller value makes the network
            more robust and costs more accuracy: 1 favours robustness, 3 favours accuracy.
        seed: the seed of the random choice of examples.

    Raises:
        InputError: DeepFool finds no boundary, so there is no rho to calibrate with.

    >>> from deepdefense_numpy.networks import TinyNetwork
    >>> rng = np.random.default_rng(0)
    >>> network, x = TinyNetwork.draw(rng, [4, 8, 3], "tanh"), rng.normal(size=(50, 4))
    >>> defense = calibrate(network, x, network(x).argmax(1))
    >>> defense.c / defense.d
    5.0
    """
    backend = backend_for(model, x)
    if check_number("steepness", steepness, least=0) == 0:
        raise InputError("steepness must be more than 0: at c = 0 no distance is better than any")
    host, labels = to_host(x), to_host(y)
    check_labels(labels, host)
    if not len(host):
        raise InputError("there is no example to calibrate on")
    penalty = DeepDefense() if defense is None else defense
    if not isinstance(penalty, DeepDefense):
        kind = getattr(penalty, "__name__", type(penalty).__name__)
        raise InputError(f"c and d are settings of a DeepDefense, {kind} has none to calibrate")
    like = x if framework_of(x) == backend.name else None
    return fit_penalty(backend, model, host, labels, penalty, seed, steepness, like)


def fit_penalty(
    backend: Backend,
    model: Any,
    x: Any,
    y: Any,
    defense: DeepDefense,
    seed: int,
    steepness: float = STEEPNESS,
    like: Any = None,
) -> DeepDefense:
    """Return `defense` with c and d fitted to the network, without checks of the arguments.

    `x` and `y` are examples and labels in host memory. Batches are placed on the device of the
    array `like` or, if `like` is None, on the model's device.
    """
    rows = np.random.default_rng((seed, 2)).permutation(len(x))[:CALIBRATION_EXAMPLES]
    options = {**RHO_ATTACK, "candidates": defense.candidates}
    measurement = measure_rho(
        model, x[rows], y[rows], backend=backend, like=like, p=defense.p, **options
    )
    usable = measurement.rho[measurement.success & (measurement.rho > 0)]
    if not len(usable):
        raise InputError(
            "c cannot be fitted to this network: DeepFool finds no boundary around its examples "
            "(does it return logits?); give c and d"
        )
    c = float(f"{steepness / float(np.median(usable)):.3g}")
    return replace(defense, c=c, d=float(f"{D_OVER_C * c:.3g}"))
