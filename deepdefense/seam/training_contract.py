"""What a backend that trains must offer: native models, weights, and one optimizer step."""

from __future__ import annotations

import abc
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any, NamedTuple, Protocol, TypeAlias

import numpy.typing as npt

from deepdefense.errors import InputError
from deepdefense.seam.choosing import get_backend
from deepdefense.seam.contract import Array, Backend, Forward
from deepdefense.zoo import Network

__all__ = ["LossFunction", "Losses", "StepResult", "Trainer", "TrainingBackend", "training_backend"]

Weights: TypeAlias = dict[str, npt.NDArray[Any]]


class Losses(NamedTuple):
    """The terms of one step's loss, each a scalar: total = cross_entropy + penalty."""

    total: Array
    cross_entropy: Array
    penalty: Array
    unfinished: Array  # the share of examples whose search did not succeed
    iterations: Array  # the mean number of steps of their searches


LossFunction: TypeAlias = Callable[..., Losses]
"""``loss(forward, model, x, y, *points)``

`forward` is the model in training mode (with dropout), `model` the model itself, and `points` are
the arrays that the objective prepared for the batch.
"""


class StepResult(NamedTuple):
    """The losses of one optimizer step, and the 2-norm of its gradient before clipping."""

    total: float
    cross_entropy: float
    penalty: float
    unfinished: float
    iterations: float
    gradient: float


class Trainer(Protocol):
    """A native model with its native optimizer."""

    @property
    def model(self) -> Any:
        """The model with its current weights."""
        ...

    def step(
        self, loss: LossFunction, x: Array, y: Array, *points: Array, lr: float, clip: float
    ) -> StepResult | None:
        """Update the parameters once; return None, and change none, if the loss is not finite.

        The same holds for the gradient. If its 2-norm, before weight decay, exceeds `clip`, it is
        scaled down to it.
        """
        ...

    def update_weights(self, to: Callable[[Mapping[str, Array]], Mapping[str, Array]]) -> None:
        """Set the parameters that `to` returns; it is given all of them.

        Both map names to native arrays in PyTorch's layout.
        """
        ...

    def state(self) -> Weights:
        """Return a copy of all that training continues from: weights, statistics, momentum."""
        ...

    def restore(self, state: Mapping[str, npt.NDArray[Any]]) -> None:
        """Return to a state that `state` returned."""
        ...


class TrainingBackend(Backend):
    """A backend that can also train: the native side of `deepdefense.harden`."""

    @abc.abstractmethod
    def on_device(self, device: str | None) -> AbstractContextManager[None]:
        """Open a context in which new models and arrays are on that device, by its native name.

        None leaves the choice to the framework. Raises `InputError` if there is no such device.
        """

    @abc.abstractmethod
    def build(self, network: Network, weights: Mapping[str, npt.NDArray[Any]]) -> Any:
        """Build a native model of that description with those weights, in their dtype."""

    @abc.abstractmethod
    def copy(self, model: Any) -> Any:
        """Return an independent copy."""

    @abc.abstractmethod
    def weights(self, model: Any) -> Weights:
        """Copy parameters and statistics, with PyTorch's names and layout."""

    @abc.abstractmethod
    def load(self, model: Any, weights: Mapping[str, npt.NDArray[Any]]) -> Any:
        """Return the model with all these weights set, in place if possible.

        Names and shapes must fit.
        """

    @abc.abstractmethod
    def trainer(self, model: Any, *, momentum: float, weight_decay: float, seed: int) -> Trainer:
        """Return the model with its own SGD optimizer; `seed` is that of its dropout."""

    @abc.abstractmethod
    def fixed_seed(self, *seed: int) -> AbstractContextManager[None]:
        """Open a context in which global randomness (dropout) is seeded; restore it on exit."""

    def freeze_except(self, model: Any, layer: str) -> Forward:
        """Return the model in inference mode, with only the parameters of `layer` differentiable.

        Call the result inside ``inference(model)``. A layer's parameters have names such as
        LAYER.weight. Raises `InputError` in a backend that does not override it.
        """
        raise InputError(f"the {self.name} backend cannot hold layers constant: use another")


def training_backend(name: str) -> TrainingBackend:
    """Return the backend of that name; raise `InputError` if it cannot train."""
    backend = get_backend(name)
    if not isinstance(backend, TrainingBackend):
        raise InputError(f"the {name} backend evaluates but does not train: use another, say torch")
    return backend
