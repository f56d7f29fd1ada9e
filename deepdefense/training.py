"""Fine-tuning by epochs, guarded: what every framework's native training step is driven by.

The optimizer and its step are native (`Trainer`); the order of the examples, the loss, the watch
over it and the record kept are the same for all.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal, NamedTuple, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from deepdefense.augmentation import augmented
from deepdefense.backend import Array, Backend, Forward, get_backend
from deepdefense.checks import check_count, check_flag, check_number, python_numbers
from deepdefense.errors import InputError
from deepdefense.objective import LossFunction, Objective, loss_of
from deepdefense.zoo import Network

__all__ = [
    "LEAST_CLIP",
    "DivergedError",
    "Epoch",
    "Recipe",
    "Taken",
    "Trainer",
    "TrainingBackend",
    "take_step",
    "train_epoch",
    "training_backend",
]

Weights = dict[str, npt.NDArray[Any]]
LEAST_CLIP = 1e-6  # a limit below would stop training


@dataclass(frozen=True)
class Recipe:
    """How to train: SGD with momentum, the learning rate cut once near the end or let down slowly.

    Args:
        epochs: passes over the training set.
        lr: learning rate.
        batch_size: examples per step.
        momentum, weight_decay: of SGD.
        decay: what the learning rate is multiplied by for the last fifth of the epochs.
        anneal: let it down over all epochs instead, along half a cosine from lr to decay lr.
        warmup: epochs, and parts of one, in which the learning rate rises from 0.
        clip: the largest 2-norm of a step's gradient (before weight decay): a longer one is scaled
            down to it. None: no limit. "auto": the median before training (`harden` measures it).
        flip: whether each image is mirrored left to right half of the time.
        shift: how many pixels each image is moved at most, either way, at random. What a command's
            data subtract, their mean image, stays in its place; of your own arrays it is not known:
            let the model subtract it.
        channels_last: the images' layout, for those two: [h w c] instead of [c h w].
        seed: fixes the order of the examples, their flips and shifts, dropout and, in a job,
            initial weights.

    The defaults are the paper's for fine-tuning (Yan, Guo and Zhang, 2018, section 4).
    """

    epochs: int = 5
    lr: float = 5e-4
    batch_size: int = 100
    momentum: float = 0.9
    weight_decay: float = 5e-4
    decay: float = 0.5
    anneal: bool = False
    warmup: float = 0.0
    clip: float | Literal["auto"] | None = None
    flip: bool = False
    shift: int = 0
    channels_last: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        python_numbers(self)
        check_count("epochs", self.epochs, least=0)
        check_count("batch_size", self.batch_size, least=1)
        check_count("seed", self.seed, least=0)
        for name in ("lr", "weight_decay", "decay", "warmup"):
            check_number(name, getattr(self, name), least=0)
        if self.clip is not None and self.clip != "auto":
            check_number("clip", self.clip, least=LEAST_CLIP)
        check_number("momentum", self.momentum, least=0, below=1)
        check_count("shift", self.shift, least=0)
        for name in ("anneal", "flip", "channels_last"):
            check_flag(name, getattr(self, name))

    def rate(self, epoch: int, part: float = 1.0) -> float:
        """The learning rate of an epoch, counted from 0, after that part of it.

        >>> [Recipe(epochs=5, lr=1.0).rate(epoch) for epoch in (0, 3, 4)]
        [1.0, 1.0, 0.5]
        >>> Recipe(lr=1.0, warmup=2.0).rate(1, part=0.5)
        0.75
        >>> Recipe(epochs=4, lr=1.0, decay=0.1, anneal=True).rate(1)  # halfway down
        0.55

        Source of the cosine: Loshchilov and Hutter (2017), "SGDR".
        """
        done = epoch + part
        rising = min(1.0, done / self.warmup) if self.warmup else 1.0
        if self.anneal:
            cosine = (1 + math.cos(math.pi * done / self.epochs)) / 2
            falling = self.decay + (1 - self.decay) * cosine
        else:
            falling = self.decay if epoch >= int(0.8 * self.epochs) else 1.0
        return self.lr * rising * falling

    @property
    def augmentation(self) -> dict[str, Any]:
        """How images are changed at random before a step sees them."""
        return {"flip": self.flip, "shift": self.shift, "channels_last": self.channels_last}


class Taken(NamedTuple):
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
    ) -> Taken | None:
        """One update; what it came to, or None, with no parameter changed, if that is not finite.

        A gradient longer than `clip` (2-norm, before weight decay) is scaled down to it.
        """
        ...

    def change(self, to: Callable[[Mapping[str, Array]], Mapping[str, Array]]) -> None:
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

    def placed(self, device: str | None) -> AbstractContextManager[None]:
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

    def held(self, model: Any, but: str) -> Forward:
        """The model in inference mode, all parameters constant but those of the layer `but`.

        To be called inside of `inference(model)`; a layer's parameters are named LAYER.weight, ...
        """
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
    """One epoch: the means over its steps, and how long it took."""

    means: Taken
    seconds: float


def training_backend(name: str) -> TrainingBackend:
    """The backend of that name; raises `InputError` if it cannot train."""
    backend = get_backend(name)
    if not isinstance(backend, TrainingBackend):
        raise InputError(f"the {name} backend evaluates but does not train: use another, say torch")
    return backend


def batches(count: int, size: int, *seed: int) -> Iterator[npt.NDArray[np.int64]]:
    """Row numbers of all examples in an order that the seed fixes, `size` at a time.

    One that would be left over alone joins those before: batch norm has no variance of one example.
    """
    order = np.random.default_rng(seed).permutation(count)
    ends = [*range(0, count, size), count]
    if len(ends) > 2 and count - ends[-2] == 1 < size:
        del ends[-2]
    return (order[begin:end] for begin, end in pairwise(ends))


def take_step(
    backend: TrainingBackend,
    trainer: Trainer,
    objective: Objective,
    x: Any,
    y: Any,
    *,
    lr: float,
    clip: float = math.inf,
) -> Taken | None:
    """One step on a batch of the host; None, and no parameter changed, if it is not finite."""
    batch = backend.asarray(x, trainer.model)
    labels = backend.index(y, int(y.max()) + 1, batch)  # their range is the losses' to check
    points = objective.points(trainer.model, batch, labels)
    loss = loss_of(backend, objective)
    taken = trainer.step(loss, batch, labels, *points, lr=lr, clip=clip)
    if taken is not None and objective.constrains:
        trainer.change(lambda weights: objective.constrained(backend, weights))
    return taken


def train_epoch(
    backend: TrainingBackend,
    trainer: Trainer,
    x: Array,
    y: Array,
    *,
    recipe: Recipe,
    objective: Objective,
    epoch: int,
    mean: Array | None = None,
    progress: Callable[[int], object] = lambda done: None,
) -> Epoch:
    """One pass over the training set, which depends on nothing but the trainer and the arguments.

    `mean` is what was subtracted from the pixels of images, and does not move with them.
    Raises `DivergedError` at the first step whose loss or gradient is not finite.
    """
    began, found = time.perf_counter(), []
    steps = -(-len(x) // recipe.batch_size)
    clip = recipe.clip if isinstance(recipe.clip, float | int) else math.inf
    random = np.random.default_rng((recipe.seed, epoch, 1))
    with backend.seeded(recipe.seed, epoch):
        for step, rows in enumerate(batches(len(x), recipe.batch_size, recipe.seed, epoch), 1):
            rate = recipe.rate(epoch, step / steps)
            batch = augmented(x[rows], random, mean=mean, **recipe.augmentation)
            taken = take_step(backend, trainer, objective, batch, y[rows], lr=rate, clip=clip)
            if taken is None:
                raise DivergedError(
                    f"the loss or its gradient was no longer finite in step {step} of "
                    f"epoch {epoch + 1}"
                )
            found.append((len(rows), *taken))
            progress(step)
    counts, *terms = np.array(found, dtype=np.float64).T
    means = Taken(*(float(np.average(term, weights=counts)) for term in terms))
    return Epoch(means, time.perf_counter() - began)
