"""Fine-tuning by epochs, guarded: what every framework's native training step is driven by.

The optimizer and its step are native (`Trainer`); the order of the examples, the loss, the watch
over it and the record kept are the same for all.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
from einops import reduce

from deepdefense.backend import Array, Backend, Forward, Model, get_backend
from deepdefense.checks import check_count, check_number
from deepdefense.defense import DeepDefense
from deepdefense.errors import InputError
from deepdefense.zoo import Network

__all__ = [
    "DivergedError",
    "Epoch",
    "Losses",
    "Recipe",
    "Trainer",
    "TrainingBackend",
    "losses",
    "train_epoch",
    "training_backend",
]

Weights = dict[str, npt.NDArray[Any]]


@dataclass(frozen=True)
class Recipe:
    """How to train: SGD with momentum, the learning rate cut once near the end.

    Args:
        epochs: passes over the training set.
        lr: learning rate.
        batch_size: examples per step.
        momentum, weight_decay: of SGD.
        decay: what the learning rate is multiplied by for the last fifth of the epochs.
        seed: fixes the order of the examples, dropout and, in a job, initial weights.

    The defaults are the paper's for fine-tuning (Yan, Guo and Zhang, 2018, section 4).
    """

    epochs: int = 5
    lr: float = 5e-4
    batch_size: int = 100
    momentum: float = 0.9
    weight_decay: float = 5e-4
    decay: float = 0.5
    seed: int = 0

    def __post_init__(self) -> None:
        check_count("epochs", self.epochs, least=0)
        check_count("batch_size", self.batch_size, least=1)
        check_count("seed", self.seed, least=0)
        for name in ("lr", "weight_decay", "decay"):
            check_number(name, getattr(self, name), least=0)
        check_number("momentum", self.momentum, least=0, below=1)

    def rate(self, epoch: int) -> float:
        """The learning rate of an epoch, counted from 0.

        >>> [Recipe(epochs=5, lr=1.0).rate(epoch) for epoch in (0, 3, 4)]
        [1.0, 1.0, 0.5]
        """
        return self.lr * (self.decay if epoch >= int(0.8 * self.epochs) else 1.0)


class Losses(NamedTuple):
    """The terms of one step, each a scalar: total = cross_entropy + penalty."""

    total: Array
    cross_entropy: Array
    penalty: Array
    unfinished: Array  # share of the examples whose search did not succeed


# The model as it trains (dropout at work), the model itself, examples, labels -> the losses.
LossFunction = Callable[[Forward, Model, Array, Array], Losses]


class Trainer(Protocol):
    """A native model with its native optimizer."""

    @property
    def model(self) -> Any:
        """The model as it stands."""
        ...

    def step(self, loss: LossFunction, x: Array, y: Array, lr: float) -> Losses | None:
        """One update; the losses as floats, or None, with nothing changed, if not finite."""
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

    def trainer(self, model: Any, recipe: Recipe) -> Trainer:
        """The model with an SGD optimizer of its own."""
        ...

    def seeded(self, *seed: int) -> AbstractContextManager[None]:
        """Global randomness (dropout) fixed inside, and as before outside."""
        ...


class DivergedError(RuntimeError):
    """Training has left the finite numbers; the message says where."""


class Epoch(NamedTuple):
    """The means over one epoch's steps."""

    loss: float
    cross_entropy: float
    penalty: float
    unfinished: float
    seconds: float


def training_backend(name: str) -> TrainingBackend:
    """The backend of that name; raises `InputError` if it cannot train."""
    backend = get_backend(name)
    if not isinstance(backend, TrainingBackend):
        raise InputError(f"the {name} backend evaluates but does not train: use another, say torch")
    return backend


@cache
def losses(backend: Backend, defense: DeepDefense | None) -> LossFunction:
    """Mean cross-entropy plus mean penalty (none without a defense), term by term.

    The same function for the same arguments, so that it is compiled once.
    """

    def loss(forward: Forward, model: Model, x: Array, y: Array) -> Losses:
        logits = forward(x)
        labels = backend.index(y, logits.shape[1], x)
        entropy = reduce(backend.softmax_cross_entropy(logits, labels), "b ->", "mean")
        if defense is None:
            zero = backend.stop_gradient(entropy) * 0
            return Losses(entropy, entropy, zero, zero)
        terms = defense.terms(model, x, labels)
        penalty = reduce(terms.penalty, "b ->", "mean")
        failed = backend.xp.where(
            terms.success,
            backend.xp.zeros_like(terms.penalty),
            backend.xp.ones_like(terms.penalty),
        )
        return Losses(entropy + penalty, entropy, penalty, reduce(failed, "b ->", "mean"))

    return loss


def batches(count: int, size: int, *seed: int) -> Iterator[npt.NDArray[np.int64]]:
    """Row numbers of all examples in an order that the seed fixes, `size` at a time."""
    order = np.random.default_rng(seed).permutation(count)
    return (order[start : start + size] for start in range(0, count, size))


def train_epoch(
    backend: TrainingBackend,
    trainer: Trainer,
    x: Array,
    y: Array,
    *,
    recipe: Recipe,
    defense: DeepDefense | None,
    epoch: int,
    progress: Callable[[int], object] = lambda done: None,
) -> Epoch:
    """One pass over the training set, which depends on nothing but the trainer and the arguments.

    Raises `DivergedError` at the first step whose loss or gradient is not finite.
    """
    loss = losses(backend, defense)
    began, found = time.perf_counter(), []
    with backend.seeded(recipe.seed, epoch):
        for step, rows in enumerate(batches(len(x), recipe.batch_size, recipe.seed, epoch), 1):
            batch = backend.asarray(x[rows], trainer.model)
            taken = trainer.step(loss, batch, y[rows], recipe.rate(epoch))
            if taken is None:
                raise DivergedError(
                    f"the loss or its gradient was no longer finite in step {step} of "
                    f"epoch {epoch + 1}"
                )
            found.append((len(rows), *taken))
            progress(step)
    counts, *terms = np.array(found, dtype=np.float64).T
    total, entropy, penalty, unfinished = (float(np.average(t, weights=counts)) for t in terms)
    return Epoch(total, entropy, penalty, unfinished, time.perf_counter() - began)
