"""Build a network of the zoo, or call a user's factory function, and load weights into it."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from deepdefense.app.run_folder import WeightArrays, load_weights
from deepdefense.errors import InputError
from deepdefense.evaluation.dataset import Dataset
from deepdefense.seam.choosing import available_backends, current_backend
from deepdefense.seam.training_contract import TrainingBackend, training_backend
from deepdefense.zoo import COUNTER, NETWORKS, Network, initial_weights, weight_shapes

__all__ = [
    "build",
    "check_weights",
    "find_installed_framework",
    "load_network_weights",
    "make_network",
]


def build(
    network: Network,
    weights: str | Path | WeightArrays | None = None,
    *,
    seed: int = 0,
    deviation: float = 1.0,
) -> Any:
    """Build a network of the zoo as a native model of the framework chosen by `use_backend`.

    In PyTorch the model is a `torch.nn.Sequential`, and in TensorFlow a `keras.Model`. In JAX the
    model is a pytree of weights that can also be called.

    Args:
        network: a description, such as ``zoo.lenet((1, 28, 28), 10)``.
        weights: the path of a safetensors file, or a mapping from names to arrays, with PyTorch's
            names and layout in every framework. The model has their dtype. None: initial weights,
            in float32.
        seed: the seed of the initial weights.
        deviation: the standard deviation of the network's inputs, on which the initial weights
            depend.

    Raises:
        InputError: no backend is chosen, or the weights do not fit the network.

    >>> from deepdefense.zoo import mlp
    >>> build(mlp((2,), 3))
    Traceback (most recent call last):
    deepdefense.errors.InputError: choose a framework first: deepdefense.use_backend("torch")
    """
    backend = current_backend()
    if backend is None:
        raise InputError('choose a framework first: deepdefense.use_backend("torch")')
    if weights is None:
        weights = initial_weights(network, seed, deviation)
    source = "the weights given"
    if isinstance(weights, str | Path):
        source, weights = str(weights), load_weights(Path(weights))
    check_weights(weights, weight_shapes(network), source)
    return training_backend(backend.name).build(network, weights)


def check_weights(
    weights: WeightArrays, shapes: Mapping[str, tuple[int, ...]], source: str
) -> None:
    """Raise `InputError` unless the weights are finite and fit a network.

    `shapes` maps the name of each of the network's weights to its shape. `source` says in the error
    where the weights come from. Only PyTorch has the batch counters of batch norm, so they are
    ignored.
    """
    weights = {name: value for name, value in weights.items() if not name.endswith(COUNTER)}
    shapes = {name: shape for name, shape in shapes.items() if not name.endswith(COUNTER)}
    missing, unknown = (
        sorted(shapes.keys() - weights.keys()),
        sorted(weights.keys() - shapes.keys()),
    )
    if missing or unknown:
        parts = [f"lacks {', '.join(missing)}"] * bool(missing)
        parts += [f"has {', '.join(unknown)}, which it does not"] * bool(unknown)
        raise InputError(f"{source} does not fit the network: it {' and '.join(parts)}")
    for name, value in weights.items():
        if value.shape != shapes[name]:
            raise InputError(
                f"{source} does not fit the network: {name} must have shape "
                f"{list(shapes[name])}, it has {list(value.shape)}"
            )
        if not np.isfinite(value).all():
            raise InputError(f"{source}: {name} holds NaN or infinite values")


def find_installed_framework() -> str:
    """Return the first installed framework: torch, then the others in alphabetical order."""
    available = available_backends()
    names = ["torch", *sorted(available.keys() - {"numpy", "torch"})]
    return next((name for name in names if available[name]), names[0])


def make_network(
    backend: TrainingBackend, name: str, data: Dataset, seed: int, weights: Path | None = None
) -> Any:
    """Return a network of the zoo with initial weights, or the model that a factory returns.

    `name` is a key of `NETWORKS` for a network of the zoo, or package.module:factory for a user's
    function. A network of the zoo gets the input shape of `data`, and a class for each label that
    occurs in `data`. If `weights` is the file of its weights, it gets as many classes as they have.
    """
    if name in NETWORKS:
        network = NETWORKS[name](data.x_train.shape[1:], len(data.labels))
        if weights is not None:
            last = list(weight_shapes(network))[-1]  # the biases of the last layer, one per class
            classes = load_weights(weights).get(last, np.zeros(network.classes)).size
            network = NETWORKS[name](data.x_train.shape[1:], classes)
        deviation = float(data.x_train.std()) or 1.0
        return backend.build(network, initial_weights(network, seed, deviation))
    place, _, factory = name.partition(":")
    if not factory:
        raise InputError(
            f"network must be {', '.join(NETWORKS)} or package.module:factory, got {name!r}"
        )
    sys.path.insert(0, "")  # as `python -m` does, to import from the working folder
    try:
        with backend.fixed_seed(seed):
            return getattr(importlib.import_module(place), factory)()
    except (ImportError, AttributeError, TypeError) as error:
        raise InputError(
            f"network {name}: {error}; expected an importable module with a function "
            "that takes no argument and returns a model"
        ) from error
    finally:
        sys.path.remove("")


def load_network_weights(backend: TrainingBackend, model: Any, path: Path) -> Any:
    """Load the weights in a safetensors file into a model, and return the model.

    Raises `InputError` unless the names and shapes in the file are those of the model's weights.
    """
    weights = load_weights(path)
    shapes = {name: value.shape for name, value in backend.weights(model).items()}
    check_weights(weights, shapes, str(path))
    return backend.load(model, weights)
