"""The training recipe: learning-rate schedule, optimizer settings, augmentation and seed.

The optimizers are in backends/*/optimizer.py. To support another optimizer, add its settings to
`Recipe`, pass them on in `Recipe.make_trainer` and in `trainer` of backends/*/training.py, and use
them in optimizer.py.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

from deepdefense.seam.settings import (
    check_settings,
    document_settings,
    none_or,
    real_number,
    setting,
    true_or_false,
    whole_number,
)
from deepdefense.seam.training_contract import Trainer, TrainingBackend

__all__ = ["LEAST_CLIP", "Recipe"]

LEAST_CLIP = 1e-6  # a smaller gradient clip would leave the weights almost unchanged


@document_settings
@dataclass(frozen=True)
class Recipe:
    """The settings of training by SGD with momentum: learning-rate schedule, augmentation, seed.

    The defaults are the paper's settings for fine-tuning (Yan, Guo and Zhang, 2018, section 4).

    Flips and shifts must move the pixels, but not a mean image that was subtracted from them. To
    use `flip` or `shift` with `dd.harden`, pass unchanged pixels and subtract the mean image in the
    model.
    """

    epochs: int = setting(5, "passes over the training examples", whole_number(0))
    lr: float = setting(5e-4, "learning rate", real_number(0))
    batch_size: int = setting(100, "examples per step", whole_number(1))
    momentum: float = setting(0.9, "momentum of SGD", real_number(0, below=1), option=False)
    weight_decay: float = setting(5e-4, "weight decay of SGD", real_number(0), option=False)
    decay: float = setting(
        0.5,
        "factor by which lr is multiplied in the last fifth of the epochs; with anneal, the "
        "factor that the learning rate reaches at the end",
        real_number(0),
        option=False,
    )
    anneal: bool = setting(
        False,
        "lower the learning rate along half a cosine over all epochs, instead of once, for the "
        "last fifth of them",
        true_or_false,
    )
    warmup: float = setting(
        0.0, "epochs, whole or not, in which the learning rate rises from 0", real_number(0)
    )
    clip: float | Literal["auto"] | None = setting(
        None,
        "largest 2-norm of a step's gradient, before weight decay, to which longer gradients are "
        "scaled down; auto: the median before training, which harden measures",
        none_or(real_number(LEAST_CLIP), "auto"),
        unset="no limit",
    )
    flip: bool = setting(
        False, "mirror each training image left to right half of the time", true_or_false
    )
    shift: int = setting(
        0, "move each training image at random by up to this many pixels", whole_number(0)
    )
    channels_last: bool = setting(
        False, "for flip and shift: images are [h w c], not [c h w]", true_or_false
    )
    seed: int = setting(
        0,
        "seed of everything random: the order of the examples, flips and shifts, dropout, and a "
        "command's initial weights",
        whole_number(0),
    )

    def __post_init__(self) -> None:
        check_settings(self)

    def rate(self, epoch: int, part: float = 1.0) -> float:
        """Return the learning rate in an epoch, after the share `part` of the epoch's steps.

        `epoch` is the number of the epoch, counted from 0. `part` is 1 at the end of the epoch.

        >>> [Recipe(epochs=5, lr=1.0).rate(epoch) for epoch in (0, 3, 4)]
        [1.0, 1.0, 0.5]
        >>> Recipe(lr=1.0, warmup=2.0).rate(1, part=0.5)
        0.75
        >>> Recipe(epochs=4, lr=1.0, decay=0.1, anneal=True).rate(1)  # halfway from 1 to 0.1
        0.55

        Source of the cosine: Loshchilov and Hutter (2017), "SGDR".
        """
        done = epoch + part
        warmup = min(1.0, done / self.warmup) if self.warmup else 1.0
        if self.anneal:
            cosine = (1 + math.cos(math.pi * done / self.epochs)) / 2
            decay = self.decay + (1 - self.decay) * cosine
        else:
            decay = self.decay if epoch >= int(0.8 * self.epochs) else 1.0
        return self.lr * warmup * decay

    def make_trainer(self, backend: TrainingBackend, model: Any) -> Trainer:
        """Return a trainer for SGD on the model with the recipe's momentum and weight decay."""
        return backend.trainer(
            model, momentum=self.momentum, weight_decay=self.weight_decay, seed=self.seed
        )

    @property
    def augmentation(self) -> dict[str, Any]:
        """The keyword arguments `flip`, `shift` and `channels_last` for `augment`."""
        return {"flip": self.flip, "shift": self.shift, "channels_last": self.channels_last}
