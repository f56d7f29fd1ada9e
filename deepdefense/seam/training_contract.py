"""The contract for backends that train: building models, reading weights, and optimizer steps.

Native models and native arrays are the models and arrays of the backend's framework.
"""

from __future__ import annotations

import abc
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal, NamedTuple, Protocol, TypeAlias

import numpy.typing as npt

from deepdefense.errors import InputError
from deepdefense.seam.choosing import get_backend
from deepdefense.seam.contract import Array, Backend, Forward
from deepdefense.zoo import Network

__all__ = [
    "LossFunction",
    "Losses",
    "OptimizerName",
    "StepResult",
    "Trainer",
    "TrainingBackend",
    "training_backend",
]

Weights: TypeAlias = dict[str, npt.NDArray[Any]]
OptimizerName: TypeAlias = Literal["sgd", "adam", "adamw"]


class Losses(NamedTuple):
    """The loss of one batch, its two terms, and two statistics of the attack inside the penalty.

    total = cross_entropy + penalty. Every field is a scalar array.
    """

    total: Array
    cross_entropy: Array
    penalty: Array
    unfinished: Array  # the share of examples for which the attack did not succeed
    iterations: Array  # the number of iterations of the attack, averaged over the examples


LossFunction: TypeAlias = Callable[..., Losses]
"""``loss(forward, model, x, y, *points)``

The loss that `Trainer.step` minimises. `forward` computes logits in training mode (with dropout).
`model` is the model itself. `points` are the arrays that `Objective.points` returns for the batch.
"""


class StepResult(NamedTuple):
    """The `Losses` of one optimizer step as floats, and the norm of the total loss's gradient.

    `gradient` is the 2-norm of the gradient in all parameters together, before clipping.
    """

    total: float
    cross_entropy: float
    penalty: float
    unfinished: float
    iterations: float
    gradient: float


class Trainer(Protocol):
    """A native model and the optimizer that trains it, made by `TrainingBackend.trainer`."""

    @property
    def model(self) -> Any:
        """The model with its current weights."""
        ...

    def step(
        self, loss: LossFunction, x: Array, y: Array, *points: Array, lr: float, clip: float
    ) -> StepResult | None:
        """Update the parameters once, and return the losses before the update.

        If the loss or the gradient is not finite, change no parameter and return None. If the
        2-norm of the gradient exceeds `clip`, scale the gradient to the norm `clip`. Weight decay
        follows after this clipping.
        """
        ...

    def update_weights(self, to: Callable[[Mapping[str, Array]], Mapping[str, Array]]) -> None:
        """Pass all trained parameters to the function `to`, and replace those that `to` returns.

        The argument and the result of `to` map names of parameters to native arrays in PyTorch's
        layout.
        """
        ...

    def state(self) -> Weights:
        """Copy the weights, running statistics, the optimizer's state, and any random state."""
        ...

    def restore(self, state: Mapping[str, npt.NDArray[Any]]) -> None:
        """Set the trainer's state to a copy that `state` returned."""
        ...


class TrainingBackend(Backend):
    """A backend that can also train, as `deepdefense.harden` and the command line need."""

    @abc.abstractmethod
    def on_device(self, device: str | None) -> AbstractContextManager[None]:
        """Open a context in which the framework places new models and arrays on the device.

        `device` is the framework's own name for the device. With None, the framework chooses.
        Raises `InputError` if there is no such device.
        """

    @abc.abstractmethod
    def build(self, network: Network, weights: Mapping[str, npt.NDArray[Any]]) -> Any:
        """Build a native model of a zoo network with the given weights, in the weights' dtype."""

    @abc.abstractmethod
    def copy(self, model: Any) -> Any:
        """Return a copy of the model that shares no weights with it."""

    @abc.abstractmethod
    def weights(self, model: Any) -> Weights:
        """Copy the parameters and running statistics to host memory, in PyTorch's layout.

        The keys of the result are PyTorch's names of the weights.
        """

    @abc.abstractmethod
    def load(self, model: Any, weights: Mapping[str, npt.NDArray[Any]]) -> Any:
        """Return the model with all its weights replaced, or a new model if models are immutable.

        The weights must have the names and shapes that `weights` returns for the model.
        """

    @abc.abstractmethod
    def trainer(
        self,
        model: Any,
        *,
        optimizer: OptimizerName,
        momentum: float,
        weight_decay: float,
        seed: int,
    ) -> Trainer:
        """Return a trainer that updates the model w by its gradient g at the learning rate lr.

        - "sgd": v <- momentum v + g + weight_decay w, and w <- w - lr v.
        - "adam": Adam's step A for g + weight_decay w, and w <- w - lr A. `momentum` is not used.
        - "adamw": Adam's step A for g, and w <- w - lr (A + weight_decay w).

        Adam has the rates 0.9 and 0.999 and the constant epsilon = 1e-8:
        m <- 0.9 m + 0.1 g, v <- 0.999 v + 0.001 g^2, and, in step t, A = m' / (sqrt(v') + epsilon)
        with m' = m / (1 - 0.9^t) and v' = v / (1 - 0.999^t).

        If the trainer holds the random state of dropout, `seed` determines that state.

        Sources: Kingma and Ba (2015), "Adam"; Loshchilov and Hutter (2019), "Decoupled Weight Decay
        Regularization".
        """

    @abc.abstractmethod
    def fixed_seed(self, *seed: int) -> AbstractContextManager[None]:
        """Open a context in which the framework's global random state is seeded by `seed`.

        On exit, restore the previous state.
        """

    def thread_count(self, model: Any, x: Array) -> int | None:
        """Return how many CPU threads compute the model's logits for the batch x.

        Return None if the number cannot change while the process runs, or if changing it has no
        effect or is costly, for example because x is on a GPU.
        """
        return None

    def limit_threads(self, count: int) -> AbstractContextManager[None]:
        """Open a context in which operations use at most `count` CPU threads, if that is possible.

        On exit, restore the former number, also after an exception.
        """
        return nullcontext()

    def freeze_except(self, model: Any, layer: str) -> Forward:
        """Return the model as a function in which only the parameters of `layer` get gradients.

        Call that function inside ``inference(model)``. `layer` is the part of a parameter's name
        before the last dot, such as fc1 of fc1.weight. Raises `InputError` if the backend does not
        implement this method.
        """
        raise InputError(f"the {self.name} backend cannot hold layers constant: use another")


def training_backend(name: str) -> TrainingBackend:
    """Return the backend with the given name; raise `InputError` if it cannot train."""
    backend = get_backend(name)
    if not isinstance(backend, TrainingBackend):
        raise InputError(f"the {name} backend evaluates but does not train: use another, say torch")
    return backend
