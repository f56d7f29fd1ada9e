"""The pairs of data and network of the battery."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

from sklearn import datasets

from benchmarks.battery import native_networks as native
from benchmarks.battery import torch_networks as nets
from benchmarks.battery.data import (
    Reader,
    cut_textures,
    draw_published,
    split_digits,
    split_table,
)
from deepdefense.seam.training_contract import TrainingBackend

__all__ = ["PAIRS", "Builder", "Pair"]

# Returns a network with initial weights. The backend's random state is seeded during the call.
Builder: TypeAlias = Callable[[TrainingBackend, int], Any]  # backend, seed -> network


@dataclass(frozen=True)
class Pair:
    """Data, and a network that is trained on them.

    - `title`: a phrase that names data and network.
    - `read`: a function that returns the examples for a seed.
    - `builders`: for each framework in which the pair runs, a function that builds the network.
    - `epochs`: the epochs of plain training.
    - `bounds`: the range of the data, or None. Only the rivals get it, `dd.harden` does not.
    - `needs`: the name of the published data set that the pair needs in `--data-dir`, or None.
    """

    title: str
    read: Reader
    builders: Mapping[str, Builder]
    epochs: int
    bounds: tuple[float, float] | None = None
    needs: str | None = None


UNIT = (0.0, 1.0)


def _in_torch(make: Callable[..., Any], *arguments: Any) -> Mapping[str, Builder]:
    """Return the builders of a network that exists in PyTorch only."""
    return {"torch": lambda backend, seed: make(*arguments)}


def _in_all(inputs: int, classes: int, width: int = 32) -> Mapping[str, Builder]:
    """Return the builders of the zoo's fully connected network in all frameworks."""
    return {
        framework: lambda backend, seed: native.make_zoo_mlp(backend, inputs, classes, seed, width)
        for framework in ("torch", "jax", "tensorflow")
    }


def _read_table(load: Callable[..., Any], *, standardise: bool = True) -> Reader:
    return lambda seed, folder: split_table(load, seed, standardise=standardise)


def _take_part(name: str, *, train: int, classes: int = 10) -> Reader:
    return partial(draw_published, name, train=train, test=1000, classes=classes)


PAIRS: Mapping[str, Pair] = {
    "digits-cnn-bn": Pair(
        "digits, CNN with batch norm",
        lambda seed, folder: split_digits(seed),
        _in_torch(nets.make_cnn_bn, 1, 8, 10),
        epochs=15,
        bounds=UNIT,
    ),
    "digits-gelu": Pair(
        "digits, MLP with layer norm and GELU",
        lambda seed, folder: split_digits(seed),
        {
            **_in_torch(nets.make_gelu_mlp, 64, 10),
            "jax": lambda backend, seed: native.make_equinox_gelu_mlp(64, 10, seed),
            "tensorflow": lambda backend, seed: native.make_keras_gelu_mlp((1, 8, 8), 10, seed),
        },
        epochs=20,
        bounds=UNIT,
    ),
    "breast-mlp": Pair(
        "breast cancer, MLP", _read_table(datasets.load_breast_cancer), _in_all(30, 2), epochs=30
    ),
    "breast-raw-mlp": Pair(
        "breast cancer with features as they are, MLP",
        _read_table(datasets.load_breast_cancer, standardise=False),
        _in_torch(nets.make_mlp, 30, 2),
        epochs=100,
    ),
    "wine-mlp": Pair("wine, MLP", _read_table(datasets.load_wine), _in_all(13, 3), epochs=100),
    "iris-mlp": Pair("iris, MLP", _read_table(datasets.load_iris), _in_all(4, 3, 16), epochs=300),
    "textures-cnn": Pair(
        "textures, CNN",
        lambda seed, folder: cut_textures(seed, train=600, test=400, side=16),
        _in_torch(nets.make_cnn, 3, 16, 6),
        epochs=60,
        bounds=UNIT,
    ),
    "mnist-dropout": Pair(
        "3,000 images of MNIST, MLP with dropout",
        _take_part("mnist", train=3000),
        _in_torch(nets.make_mlp, 784, 10, 128, 0.3),
        epochs=15,
        bounds=UNIT,
        needs="mnist",
    ),
    "mnist-cnn": Pair(
        "2,000 images of MNIST, CNN",
        _take_part("mnist", train=2000),
        _in_torch(nets.make_cnn, 1, 28, 10, 8),
        epochs=10,
        bounds=UNIT,
        needs="mnist",
    ),
    "mnist5-mlp": Pair(
        "1,500 images of five classes of MNIST, MLP",
        _take_part("mnist", train=1500, classes=5),
        _in_torch(nets.make_mlp, 784, 5, 64),
        epochs=15,
        bounds=UNIT,
        needs="mnist",
    ),
    "cifar5-cnn-bn": Pair(
        "5,000 images of five classes of CIFAR-10, CNN with batch norm",
        _take_part("cifar10", train=5000, classes=5),
        _in_torch(nets.make_deep_cnn_bn, 3, 5),
        epochs=12,
        bounds=UNIT,
        needs="cifar10",
    ),
    "cifar2-gelu": Pair(
        "2,000 images of two classes of CIFAR-10, CNN with group norm and GELU",
        _take_part("cifar10", train=2000, classes=2),
        _in_torch(nets.make_gelu_cnn, 3, 32, 2, 12),
        epochs=12,
        bounds=UNIT,
        needs="cifar10",
    ),
}
