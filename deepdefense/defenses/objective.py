"""The objective of training: the mean cross-entropy. Each defence overrides parts of it."""

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
    """Return the mean cross-entropy: logits [b k], labels [b] -> a scalar."""
    labels = backend.index(y, logits.shape[1], logits)
    return reduce(backend.softmax_cross_entropy(logits, labels), "b ->", "mean")


@dataclass(frozen=True)
class Objective:
    """Plain training, and the base class of every defence.

    A training step computes `points`, differentiates `losses`, updates the weights, and replaces
    those that `constrain` returns. A defence overrides one or more of these methods. Objectives
    with equal settings compare equal, so a step is compiled only once.
    """

    def __post_init__(self) -> None:
        check_settings(self)

    def points(self, model: Model, x: Array, y: Array) -> tuple[Array, ...]:
        """Return the arrays that `losses` needs besides the batch, such as perturbed examples.

        They are constants of the step. Attacks run here, and not in `losses`, which a framework may
        compile: attacks need concrete values, because they draw at random and stop early.
        """
        return ()

    def losses(
        self, backend: Backend, forward: Forward, model: Model, x: Array, y: Array, *points: Array
    ) -> Losses:
        """Return the loss terms for examples [b ...] and labels [b].

        They are differentiable in the parameters. `forward` calls the model in training mode, with
        dropout and batch statistics; `model` is the model itself.
        """
        entropy = mean_cross_entropy(backend, forward(x), y)
        zero = backend.stop_gradient(entropy) * 0
        return Losses(entropy, entropy, zero, zero, zero)

    def constrain(self, backend: Backend, weights: Mapping[str, Array]) -> Mapping[str, Array]:
        """Return new values for some of the parameters, by name, after a step.

        The arrays of `weights`, and those returned, have PyTorch's layout.
        """
        return {}

    def objective(self, model: Model, x: Array, y: Array, *points: Array) -> Array:
        """Return the total loss, a scalar, for a training loop of your own.

        The model is called in its current mode. `points` are computed from the batch unless given.
        Inside a compiled function they must be given.
        """
        backend = backend_of(x, model=model, labels=y)
        check_labels(y, x)

        def forward(x: Array) -> Array:
            logits = model(x)
            check_logits(logits, x)
            return logits

        points = points or self.points(model, x, y)
        return self.losses(backend, forward, model, x, y, *points).total

    @property
    def has_constraint(self) -> bool:
        """Return whether the class overrides `constrain`."""
        return type(self).constrain is not Objective.constrain


@cache
def make_loss_function(backend: Backend, objective: Objective) -> LossFunction:
    """Return the objective's losses as a function of model and batch.

    Equal arguments return the same function, so a framework compiles it only once.
    """

    def loss(forward: Forward, model: Model, x: Array, y: Array, *points: Array) -> Losses:
        return objective.losses(backend, forward, model, x, y, *points)

    return loss
