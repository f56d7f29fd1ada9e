"""The training recipe: optimizer, learning-rate schedule, augmentation and seed.

The optimizers are in backends/*/optimizer.py. To support another optimizer, add its name to
`OptimizerName` and its settings to `Recipe`, pass them on in `Recipe.make_trainer` and in `trainer`
of backends/*/training.py, and use them in optimizer.py.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_args

from deepdefense.seam.settings import (
    check_settings,
    document_settings,
    none_or,
    one_of,
    real_number,
    setting,
    true_or_false,
    whole_number,
)
from deepdefense.seam.training_contract import OptimizerName, Trainer, TrainingBackend

__all__ = ["LEAST_CLIP", "ModelMode", "Recipe"]

ModelMode: TypeAlias = Literal["training", "inference"]

LEAST_CLIP = 1e-6  # a smaller gradient clip would leave the weights almost unchanged
STEP_PERIODS = 10  # the number of periods into which `Recipe.optimizer_steps` is divided


@document_settings
@dataclass(frozen=True)
class Recipe:
    """The settings of training: optimizer, learning-rate schedule, augmentation and seed.

    Training is divided into periods: epochs or, with `optimizer_steps`, ten parts of equally many
    steps. After each period, `harden` evaluates the network, saves a checkpoint, and may undo the
    period.

    Flips and shifts must move the pixels, but not a mean image that was subtracted from them. To
    use `flip` or `shift` with `dd.harden`, pass unchanged pixels and subtract the mean image in the
    model.
    """

    epochs: int = setting(5, "passes over the training examples", whole_number(0))
    optimizer_steps: int | None = setting(
        None,
        "number of optimizer steps in all, in place of epochs: small data are passed many times, "
        "large data in part; divided into ten periods, which then take the place of epochs",
        none_or(whole_number(1)),
        unset="as many as the epochs have",
    )
    optimizer: OptimizerName = setting(
        "sgd",
        "sgd (with momentum), adam, or adamw (Adam with decoupled weight decay)",
        one_of(*get_args(OptimizerName)),
    )
    lr: float = setting(5e-4, "learning rate", real_number(0))
    batch_size: int = setting(100, "examples per step", whole_number(1))
    momentum: float = setting(
        0.9, "momentum of sgd; adam and adamw ignore it", real_number(0, below=1), option=False
    )
    weight_decay: float = setting(
        5e-4,
        "weight decay: sgd and adam add this multiple of the weights to their gradient, adamw "
        "shrinks the weights by lr times this share in each step",
        real_number(0),
        option=False,
    )
    decay: float = setting(
        0.5,
        "factor by which lr is multiplied in the last fifth of training; with anneal, the factor "
        "that the learning rate reaches at the end",
        real_number(0),
        option=False,
    )
    anneal: bool = setting(
        False,
        "lower the learning rate along half a cosine over all of training, instead of once, for "
        "its last fifth",
        true_or_false,
    )
    warmup: float = setting(
        0.0,
        "epochs, whole or not, in which the learning rate rises from 0; with optimizer_steps, "
        "tenths of training",
        real_number(0),
    )
    clip: float | Literal["auto"] | None = setting(
        None,
        "largest 2-norm of a step's gradient, before weight decay, to which longer gradients are "
        "scaled down; auto: the median before training, which harden measures, or with stages a "
        "fifth of it",
        none_or(real_number(LEAST_CLIP), "auto"),
        unset="no limit",
    )
    mode: ModelMode = setting(
        "training",
        "mode of the network in training steps: training, with dropout and with batch norm by the "
        "statistics of the batch; or inference, without dropout and with batch norm by its running "
        "statistics, which then stay as they are",
        one_of(*get_args(ModelMode)),
    )
    stages: bool = setting(
        False,
        "find c and d: train several times, each time with c halved, until a rehearsal on training "
        "examples set aside shows that accuracy falls or that the distance grows no more",
        true_or_false,
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

    @classmethod
    def paper(cls, **changes: Any) -> Recipe:
        """Return the paper's settings for fine-tuning, except for the fields in `changes`.

        >>> recipe = Recipe.paper(seed=1)
        >>> recipe.optimizer, recipe.momentum, recipe.lr, recipe.weight_decay, recipe.seed
        ('sgd', 0.9, 0.0005, 0.0005, 1)
        >>> recipe.batch_size, recipe.epochs, [recipe.rate(epoch) for epoch in range(5)]
        (100, 5, [0.0005, 0.0005, 0.0005, 0.0005, 0.00025])

        Source: Yan, Guo and Zhang (2018), "Deep Defense", section 4.
        """
        settings: dict[str, Any] = {
            "epochs": 5,
            "optimizer_steps": None,
            "optimizer": "sgd",
            "lr": 5e-4,
            "batch_size": 100,
            "momentum": 0.9,
            "weight_decay": 5e-4,
            "decay": 0.5,
            "anneal": False,
            "warmup": 0.0,
            "clip": None,
            "mode": "training",
            "stages": False,
        }
        return cls(**{**settings, **changes})

    @classmethod
    def staged(cls, examples: int, **changes: Any) -> Recipe:
        """Return the settings that need no tuning, except for the fields in `changes`.

        `harden` uses them if it gets neither a defence nor a recipe. `examples` is the number of
        training examples. `optimizer_steps` counts the steps of one stage: 20 passes over the
        examples, at least 200 steps and at most 500.

        >>> recipe = Recipe.staged(60_000, seed=1)
        >>> recipe.stages, recipe.optimizer, recipe.optimizer_steps, recipe.lr
        (True, 'adam', 500, 0.01)
        >>> Recipe.staged(400).optimizer_steps
        200
        """
        batch_size = changes.get("batch_size", 100)
        settings: dict[str, Any] = {
            "stages": True,
            "optimizer_steps": min(max(20 * examples // batch_size, 200), 500),
            "optimizer": "adam",
            "lr": 1e-2,
            "weight_decay": 0.0,
            "decay": 0.0,
            "anneal": True,
            "warmup": 0.5,
            "clip": "auto",
            "mode": "inference",
        }
        return cls(**{**settings, **changes})

    @property
    def periods(self) -> int:
        """The number of periods: the epochs or, with `optimizer_steps`, ten, if it is not less.

        >>> Recipe(epochs=3).periods, Recipe(optimizer_steps=1500).periods
        (3, 10)
        """
        if self.optimizer_steps is None:
            return self.epochs
        return min(STEP_PERIODS, self.optimizer_steps)

    @property
    def period_name(self) -> str:
        """The word for a period in messages: "epoch" or "period"."""
        return "epoch" if self.optimizer_steps is None else "period"

    def count_steps(self, examples: int, periods: int) -> int:
        """Return the number of optimizer steps in the first `periods` periods.

        `examples` is the number of training examples. An epoch has ceil(examples / batch_size)
        steps, or one less if `draw_batches` adds a single last row to the batch before it.

        >>> Recipe(batch_size=100).count_steps(250, periods=2)
        6
        >>> [Recipe(optimizer_steps=25).count_steps(250, periods) for periods in (1, 2, 10)]
        [2, 5, 25]
        """
        if self.optimizer_steps is None:
            return periods * -(-examples // self.batch_size)
        return periods * self.optimizer_steps // self.periods

    def rate(self, period: int, part: float = 1.0) -> float:
        """Return the learning rate in a period, after the share `part` of the period's steps.

        `period` is the number of the period, counted from 0. `part` is 1 at the end of the period.

        >>> [Recipe(epochs=5, lr=1.0).rate(epoch) for epoch in (0, 3, 4)]
        [1.0, 1.0, 0.5]
        >>> Recipe(lr=1.0, warmup=2.0).rate(1, part=0.5)
        0.75
        >>> Recipe(epochs=4, lr=1.0, decay=0.1, anneal=True).rate(1)  # halfway from 1 to 0.1
        0.55
        >>> Recipe(optimizer_steps=500, lr=1.0, decay=0.1, anneal=True).rate(4)
        0.55

        Source of the cosine: Loshchilov and Hutter (2017), "SGDR".
        """
        done = period + part
        warmup = min(1.0, done / self.warmup) if self.warmup else 1.0
        if self.anneal:
            cosine = (1 + math.cos(math.pi * done / self.periods)) / 2
            decay = self.decay + (1 - self.decay) * cosine
        else:
            decay = self.decay if period >= int(0.8 * self.periods) else 1.0
        return self.lr * warmup * decay

    def make_trainer(self, backend: TrainingBackend, model: Any) -> Trainer:
        """Return a trainer of the model, with the recipe's optimizer, momentum and decay."""
        return backend.trainer(
            model,
            optimizer=self.optimizer,
            momentum=self.momentum,
            weight_decay=self.weight_decay,
            seed=self.seed,
        )

    @property
    def augmentation(self) -> dict[str, Any]:
        """The keyword arguments `flip`, `shift` and `channels_last` for `augment`."""
        return {"flip": self.flip, "shift": self.shift, "channels_last": self.channels_last}
