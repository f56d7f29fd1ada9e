"""Train a Keras model with Deep Defense by `fit`, to whose loss `defended` adds the penalty."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import keras
from keras import ops

from deepdefense.defenses.deep_defense import DeepDefense
from deepdefense.errors import InputError
from deepdefense_keras.checks import check_batch, check_model, class_indices

__all__ = ["defended"]


class _Mean(keras.losses.Loss):  # type: ignore[misc]  # Keras has no types
    """A Keras loss, the mean of `y_pred`, to which Keras applies sample weights."""

    def call(self, y_true: Any, y_pred: Any) -> Any:
        return y_pred


class _DefendedLoss:
    """The replacement for a model's `compute_loss`: the original loss plus the mean penalty."""

    def __init__(self, model: keras.Model, defense: DeepDefense) -> None:
        self.compute_loss, self.model, self.defense = model.compute_loss, model, defense
        self.called_in_training = False

    def __call__(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> Any:
        self.called_in_training = self.called_in_training or training
        loss = self.compute_loss(x, y, y_pred, sample_weight, training=training)
        check_batch(x, y, y_pred)
        labels = class_indices(y, y_pred.shape[1])
        if not training:
            return loss
        x = ops.convert_to_tensor(x, dtype=self.model.variable_dtype)
        penalty = self.defense(self.model, x, labels)
        mean = _Mean("deepdefense", dtype=self.model.variable_dtype)(
            penalty, penalty, sample_weight
        )
        return loss + ops.cast(mean, loss.dtype)


@contextmanager
def defended(model: keras.Model, defense: DeepDefense) -> Iterator[keras.Model]:
    """Open a context in which `fit` minimises the compiled loss plus the mean penalty.

    The mean penalty is the mean of w_i * penalty(x_i, y_i) over the batch. The w_i are the sample
    weights or class weights passed to `fit`, or 1 if `fit` gets none. The context changes the loss
    that training minimises and logs as `loss`. It does not change `evaluate`, `val_loss` or
    metrics.

    Args:
        model: a compiled model with one input and one output, the logits [b k]. Labels may be class
            indices [b] or [b 1], or one-hot [b k].
        defense: the penalty, computed with the model in inference mode and in the dtype of the
            model's variables.

    Raises:
        InputError: the model does not return logits (for example, it ends in a softmax), has
            several inputs or outputs, is already in a context of `defended`, or trains without a
            call of `compute_loss`.

    Example:
        with deepdefense_keras.defended(model, deepdefense.DeepDefense(c=2.0)):
            model.fit(x, y, epochs=5)

    Source: Yan, Guo and Zhang (2018), "Deep Defense: training DNNs with improved adversarial
    robustness".
    """
    check_model(model)
    attributes = vars(model)
    before = {name: attributes[name] for name in ("compute_loss",) if name in attributes}
    if isinstance(before.get("compute_loss"), _DefendedLoss):
        raise InputError(f"the model {model.name!r} is defended already: leave that context first")
    attributes["compute_loss"] = loss = _DefendedLoss(model, defense)
    model.train_function = None  # so that Keras compiles a training step with the new loss
    try:
        yield model
        if model.train_function is not None and not loss.called_in_training:
            raise InputError(
                f"{type(model).__name__}.train_step never called compute_loss, so the model was "
                "trained without Deep Defense: let it take its loss from there"
            )
    finally:
        del attributes["compute_loss"]
        attributes.update(before)
        model.train_function = None
