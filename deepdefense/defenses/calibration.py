"""Settings from the network itself, measured before training: nothing has to be searched."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from deepdefense.defenses.deep_defense import DeepDefense
from deepdefense.errors import InputError
from deepdefense.evaluation.protocol import RHO_ATTACK
from deepdefense.evaluation.rho import measure_rho
from deepdefense.seam.choosing import backend_for, framework_of, to_host
from deepdefense.seam.contract import Backend
from deepdefense.seam.validation import check_labels, check_number

__all__ = ["calibrate", "fit_penalty"]

# c rho of the median example before training. As rho doubles or trebles while it is trained, c rho
# goes through what the paper's settings have (2.8 for its MLP, 5.1 for LeNet) from below.
STEEPNESS = 1.5


# d / c, the paper's for MNIST: 5 / 25.
D_OVER_C = 0.2


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
    """The penalty with c and d that fit the network: c = steepness / median rho_p, d = c / 5.

    The exponents c rho and d rho have no unit; what they should be for data and networks of any
    kind is known (of order 1), while c = 25 fits an image of MNIST and not one of CIFAR-10.

    Args:
        model: a trained classifier of any framework.
        x: training examples [n ...], of which 1,000 are measured.
        y: their labels [n].
        defense: every other setting; `DeepDefense()` unless given.
        steepness: c rho of the median example before training. Less of it makes a network more
            robust, and costs more accuracy: 1 is for much robustness, 3 for little loss.
        seed: draws the examples.

    Raises:
        InputError: the network has no finite rho to speak of.

    >>> from deepdefense_numpy.networks import TinyNetwork
    >>> rng = np.random.default_rng(0)
    >>> network, x = TinyNetwork.draw(rng, [4, 8, 3], "tanh"), rng.normal(size=(50, 4))
    >>> found = calibrate(network, x, network(x).argmax(1))
    >>> found.c / found.d
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
        came = getattr(penalty, "__name__", type(penalty).__name__)
        raise InputError(f"c and d are settings of a DeepDefense, {came} has none to calibrate")
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
    """`calibrate`, once the backend is known, and data are the host's; `like` is `measure`'s."""
    rows = np.random.default_rng((seed, 2)).permutation(len(x))[:CALIBRATION_EXAMPLES]
    options = {**RHO_ATTACK, "candidates": defense.candidates}
    found = measure_rho(model, x[rows], y[rows], backend=backend, like=like, p=defense.p, **options)
    usable = found.rho[found.success & (found.rho > 0)]
    if not len(usable):
        raise InputError(
            "c cannot be fitted to this network: DeepFool finds no boundary around its examples "
            "(does it return logits?); give c and d"
        )
    c = float(f"{steepness / float(np.median(usable)):.3g}")
    return replace(defense, c=c, d=float(f"{D_OVER_C * c:.3g}"))
