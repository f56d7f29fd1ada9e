"""`Objective`, the loss of plain training and the base class of every defence."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

from einops import reduce

from deepdefense.seam.choosing import backend_of
from deepdefense.seam.contract import Array, Backend, Forward, Model
from deepdefense.seam.settings import check_settings
from deepdefense.seam.training_contract import Losses, LossFunction
from deepdefense.seam.validation import check_labels, check_logits

__all__ = ["Objective", "make_loss_function", "mean_cross_entropy"]


def mean_cross_entropy(backend: Backend, logits: Array, y: Array) -> Array:
    """Return the mean cross-entropy: logits [b k], labels [b] -> a scalar."""
    labels = backend.index(y, logits.shape[1], logits)
    return reduce(backend.softmax_cross_entropy(logits, labels), "b ->", "mean")


@dataclass(frozen=True)
class Objective:
    """The mean cross-entropy, which plain training minimises; the base class of every defence.

    A training step calls `points`, differentiates the total of `losses`, updates the parameters,
    and then replaces the parameters for which `constrain` returns new values. A defence overrides
    one or more of these three methods.
    """

    def __post_init__(self) -> None:
        check_settings(self)

    def points(self, model: Model, x: Array, y: Array) -> tuple[Array, ...]:
        """Return the arrays that `losses` needs besides the batch, such as perturbed examples.

        No gradient flows through these arrays. Attacks run here and not in `losses`, because a
        framework may compile `losses`, and attacks need concrete values.
        """
        return ()

    def losses(
        self, backend: Backend, forward: Forward, model: Model, x: Array, y: Array, *points: Array
    ) -> Losses:
        """Return the loss terms for examples x [b ...], labels y [b] and the arrays of `points`.

        The loss terms are differentiable in the model's parameters. `forward` calls the model in
        training mode, with dropout and batch statistics. `model` is the model itself.
        """
        entropy = mean_cross_entropy(backend, forward(x), y)
        zero = backend.stop_gradient(entropy) * 0
        return Losses(entropy, entropy, zero, zero, zero)

    def constrain(self, backend: Backend, weights: Mapping[str, Array]) -> Mapping[str, Array]:
        """Return a dictionary of new values for the parameters that the constraint changes.

        `weights` are the parameters by name, after the update of a training step. The arrays in
        `weights` and in the result have PyTorch's layout.
        """
        return {}

    def objective(self, model: Model, x: Array, y: Array, *points: Array) -> Array:
        """Return the total loss as a scalar, for use in your own training loop.

        The cross-entropy is computed with the model in its current mode, training or inference.
        `points` is the result of `self.points(model, x, y)`, which is computed if it is not passed.
        In a compiled function, pass it, because attacks need concrete values.
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
def make_loss_function(
    backend: Backend, objective: Objective, *, in_inference: bool = False
) -> LossFunction:
    """Return ``loss(forward, model, x, y, *points)``, which calls `objective.losses`.

    With `in_inference`, the model in inference mode takes the place of `forward`, so dropout is off
    and batch norm's running statistics do not change.

    Equal arguments give the same function object, so that a framework compiles it only once.
    """

    def loss(forward: Forward, model: Model, x: Array, y: Array, *points: Array) -> Losses:
        return objective.losses(backend, forward, model, x, y, *points)

    def loss_in_inference(_: Forward, model: Model, x: Array, y: Array, *points: Array) -> Losses:
        with backend.inference(model) as forward:
            return objective.losses(backend, forward, model, x, y, *points)

    return loss_in_inference if in_inference else loss
