"""What a backend that trains must offer: native models, weights, and one optimizer step."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy.typing as npt

from deepdefense.errors import InputError
from deepdefense.seam.choosing import get_backend
from deepdefense.seam.contract import Array, Backend, Forward
from deepdefense.zoo import Network

__all__ = ["LossFunction", "Losses", "StepResult", "Trainer", "TrainingBackend", "training_backend"]

Weights = dict[str, npt.NDArray[Any]]


class StepResult(NamedTuple):
    """One step that was taken: its losses, and the 2-norm of its gradient before clipping."""

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
        """The model as it stands."""
        ...

    def step(
        self, loss: LossFunction, x: Array, y: Array, *points: Array, lr: float, clip: float
    ) -> StepResult | None:
        """One update; what it came to, or None, with no parameter changed, if that is not finite.

        A gradient longer than `clip` (2-norm, before weight decay) is scaled down to it.
        """
        ...

    def update_weights(self, to: Callable[[Mapping[str, Array]], Mapping[str, Array]]) -> None:
        """Set the parameters that `to` gives, of all of them: the framework's arrays by name.

        Names and layout are PyTorch's.
        """
        ...

    def state(self) -> Weights:
        """Everything that training goes on from: weights, statistics, momentum; a copy."""
        ...

    def restore(self, state: Mapping[str, npt.NDArray[Any]]) -> None:
        """Go back to such a state."""
        ...


@runtime_checkable
class TrainingBackend(Backend, Protocol):
    """A backend that can also train: the native side of `deepdefense.harden`."""

    def __hash__(self) -> int: ...

    def on_device(self, device: str | None) -> AbstractContextManager[None]:
        """New models and arrays lie on that device, in the framework's name, inside.

        None for where the framework puts them itself; raises `InputError` if there is none such.
        """
        ...

    def build(self, network: Network, weights: Mapping[str, npt.NDArray[Any]]) -> Any:
        """A native model of that description with those weights, in their dtype."""
        ...

    def copy(self, model: Any) -> Any:
        """An independent copy."""
        ...

    def weights(self, model: Any) -> Weights:
        """Parameters and statistics by name, in PyTorch's names and layout; copies."""
        ...

    def load(self, model: Any, weights: Mapping[str, npt.NDArray[Any]]) -> Any:
        """The model with all of them set, in place if it can be; names and shapes fit."""
        ...

    def freeze_except(self, model: Any, layer: str) -> Forward:
        """The model in inference mode, all parameters constant but those of the layer `layer`.

        To be called inside of `inference(model)`; a layer's parameters are named LAYER.weight, ...
        """
        ...

    def trainer(self, model: Any, *, momentum: float, weight_decay: float, seed: int) -> Trainer:
        """The model with an SGD optimizer of its own; `seed` is that of its dropout."""
        ...

    def fixed_seed(self, *seed: int) -> AbstractContextManager[None]:
        """Global randomness (dropout) fixed inside, and as before outside."""
        ...


def training_backend(name: str) -> TrainingBackend:
    """The backend of that name; raises `InputError` if it cannot train."""
    backend = get_backend(name)
    if not isinstance(backend, TrainingBackend):
        raise InputError(f"the {name} backend evaluates but does not train: use another, say torch")
    return backend


class Losses(NamedTuple):
    """The terms of one step, each a scalar: total = cross_entropy + penalty."""

    total: Array
    cross_entropy: Array
    penalty: Array
    unfinished: Array  # share of the examples whose search did not succeed
    iterations: Array  # the mean number of steps of their searches


# The model as it trains (dropout at work), the model itself, examples, labels, and whatever points
# were prepared -> the losses.
LossFunction = Callable[..., Losses]
