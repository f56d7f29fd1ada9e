"""Copy, shuffle and interpolate the parameters of a trainer's network, in host memory."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from deepdefense.seam.contract import Array, Backend
from deepdefense.seam.training_contract import Trainer, Weights

__all__ = ["copy_parameters", "interpolate_parameters", "shuffle_parameters"]


def copy_parameters(backend: Backend, trainer: Trainer) -> Weights:
    """Return copies of the trained parameters, by name."""
    copies: Weights = {}

    def copy(parameters: Mapping[str, Array]) -> Mapping[str, Array]:
        copies.update({name: np.array(backend.to_numpy(p)) for name, p in parameters.items()})
        return {}

    trainer.update_weights(copy)
    return copies


def interpolate_parameters(
    backend: Backend, trainer: Trainer, start: Mapping[str, npt.NDArray[Any]], share: float
) -> None:
    """Move the parameters to start + share * (parameters - start)."""
    trainer.update_weights(
        lambda parameters: {
            name: backend.asarray(start[name] + share * (backend.to_numpy(p) - start[name]), p)
            for name, p in parameters.items()
        }
    )


def shuffle_parameters(backend: Backend, trainer: Trainer, seed: int) -> None:
    """Put the entries of each matrix and kernel into a random order, which `seed` determines.

    The parameters keep the scale of trained ones, and lose all that they have learnt. Vectors, such
    as biases and the scales of normalisation, stay as they are.
    """
    random = np.random.default_rng((seed, 4))

    def shuffle(parameters: Mapping[str, Array]) -> Mapping[str, Array]:
        shuffled: dict[str, Array] = {}
        for name, parameter in parameters.items():
            host: npt.NDArray[Any] = backend.to_numpy(parameter)
            if host.ndim > 1:
                entries = random.permutation(host.reshape(-1))
                shuffled[name] = backend.asarray(entries.reshape(host.shape), parameter)
        return shuffled

    trainer.update_weights(shuffle)
