"""What training minimises: the cross-entropy, and what each method of a defence adds to it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

from einops import reduce

from deepdefense.seam.choosing import backend_of
from deepdefense.seam.contract import Array, Backend, Forward, Model
from deepdefense.seam.settings import check_settings
from deepdefense.seam.training import Losses, LossFunction
from deepdefense.seam.validation import check_labels, check_logits

__all__ = ["Objective", "make_loss_function", "mean_cross_entropy"]


def mean_cross_entropy(backend: Backend, logits: Array, y: Array) -> Array:
    """The mean cross-entropy, and nothing more: logits [b k], labels [b] -> a scalar."""
    labels = backend.index(y, logits.shape[1], logits)
    return reduce(backend.softmax_cross_entropy(logits, labels), "b ->", "mean")


@dataclass(frozen=True)
class Objective:
    """Plain training; a method of a defence overrides what it changes.

    A step of training asks for `points`, takes the gradient of `losses`, moves the weights, and
    replaces them by what `constrain` makes of them. Two of equal settings are equal, so that a
    step is compiled once.
    """

    def __post_init__(self) -> None:
        check_settings(self)

    def points(self, model: Model, x: Array, y: Array) -> tuple[Array, ...]:
        """Arrays for `losses`, made of a batch by the model as it stands: constants of the step.

        Attacks run here and not inside of the step, which a framework may compile: they draw from
        the values of the examples, and stop early.
        """
        return ()

    def losses(
        self, backend: Backend, forward: Forward, model: Model, x: Array, y: Array, *points: Array
    ) -> Losses:
        """The terms for examples [b ...] and labels [b], differentiable in the parameters.

        `forward` is the model as it trains (dropout and batch statistics at work), `model` itself.
        """
        entropy = mean_cross_entropy(backend, forward(x), y)
        zero = backend.stop_gradient(entropy) * 0
        return Losses(entropy, entropy, zero, zero, zero)

    def constrain(self, backend: Backend, weights: Mapping[str, Array]) -> Mapping[str, Array]:
        """What some parameters become after a step, by name; both in PyTorch's layout."""
        return {}

    def objective(self, model: Model, x: Array, y: Array, *points: Array) -> Array:
        """What to minimise in a loop of one's own, of the model as it stands: a scalar.

        Its `points` are made of the batch, or given: inside of a compiled function they must be.
        """
        backend = backend_of(x, model=model, labels=y)
        check_labels(y, x)

        def forward(x: Array) -> Array:
            logits = model(x)
            check_logits(logits, x)
            return logits

        given = points or self.points(model, x, y)
        return self.losses(backend, forward, model, x, y, *given).total

    @property
    def has_constraint(self) -> bool:
        """Whether `constrain` changes anything."""
        return type(self).constrain is not Objective.constrain


@cache
def make_loss_function(backend: Backend, objective: Objective) -> LossFunction:
    """The losses of an objective; the same function for equal arguments, so compiled once."""

    def loss(forward: Forward, model: Model, x: Array, y: Array, *points: Array) -> Losses:
        return objective.losses(backend, forward, model, x, y, *points)

    return loss
