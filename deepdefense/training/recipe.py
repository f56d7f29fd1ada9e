"""How to train: the schedule, the optimizer's settings, and the augmentation."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

from deepdefense.seam.training import Trainer, TrainingBackend
from deepdefense.seam.validation import check_count, check_flag, check_number, to_python_numbers

__all__ = ["LEAST_CLIP", "Recipe"]

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
        to_python_numbers(self)
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

    def make_trainer(self, backend: TrainingBackend, model: Any) -> Trainer:
        """The backend's optimizer for the model, with this momentum and weight decay."""
        return backend.trainer(
            model, momentum=self.momentum, weight_decay=self.weight_decay, seed=self.seed
        )

    @property
    def augmentation(self) -> dict[str, Any]:
        """How images are changed at random before a step sees them."""
        return {"flip": self.flip, "shift": self.shift, "channels_last": self.channels_last}
