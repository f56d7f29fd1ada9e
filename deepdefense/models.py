"""Native models of the zoo's networks, and weights from files, the same in every framework."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from deepdefense.backend import current_backend
from deepdefense.errors import InputError
from deepdefense.runs import load_weights
from deepdefense.training import training_backend
from deepdefense.zoo import Network, initial_weights, weight_shapes

__all__ = ["build", "check_weights"]

Arrays = Mapping[str, npt.NDArray[Any]]


def build(
    network: Network,
    weights: str | Path | Arrays | None = None,
    *,
    seed: int = 0,
    deviation: float = 1.0,
) -> Any:
    """A network of the zoo as the chosen framework's own model.

    A `torch.nn.Sequential`, a `keras.Sequential`, or in JAX a pytree of weights that is called on a
    batch: `jax.grad` and `jax.jit` take it as an argument.

    Args:
        network: a description, say ``zoo.lenet((1, 28, 28), 10)``.
        weights: a file of safetensors that any framework wrote, or arrays by name, in PyTorch's
            names and layout; the model takes their dtype. None: initial ones, in float32.
        seed: of the initial weights.
        deviation: the standard deviation of the inputs, for the initial weights.

    Raises:
        InputError: no backend is chosen, or the weights do not fit the network.

    >>> from deepdefense.zoo import mlp
    >>> build(mlp((2,), 3))
    Traceback (most recent call last):
    deepdefense.errors.InputError: choose a framework first: deepdefense.use_backend("torch")
    """
    chosen = current_backend()
    if chosen is None:
        raise InputError('choose a framework first: deepdefense.use_backend("torch")')
    if weights is None:
        weights = initial_weights(network, seed, deviation)
    source = "the weights given"
    if isinstance(weights, str | Path):
        source, weights = str(weights), load_weights(Path(weights))
    check_weights(weights, weight_shapes(network), source)
    return training_backend(chosen.name).build(network, weights)


def check_weights(given: Arrays, own: Mapping[str, tuple[int, ...]], source: str) -> None:
    """Raise `InputError`, naming what differs, unless names and shapes are a network's own."""
    missing, unknown = sorted(own.keys() - given.keys()), sorted(given.keys() - own.keys())
    if missing or unknown:
        parts = [f"lacks {', '.join(missing)}"] * bool(missing)
        parts += [f"has {', '.join(unknown)}, which it does not"] * bool(unknown)
        raise InputError(f"{source} does not fit the network: it {' and '.join(parts)}")
    for name, value in given.items():
        if value.shape != own[name]:
            raise InputError(
                f"{source} does not fit the network: {name} must have shape "
                f"{list(own[name])}, it has {list(value.shape)}"
            )
        if not np.isfinite(value).all():
            raise InputError(f"{source}: {name} holds NaN or infinite values")
