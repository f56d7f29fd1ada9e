"""Deep Defense's part of a loss, for as long as a context lasts."""

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
    """The mean of given values, weighted and scaled as Keras does any loss."""

    def call(self, y_true: Any, y_pred: Any) -> Any:
        return y_pred


class _DefendedLoss:
    """Stands in for one model's `compute_loss`."""

    def __init__(self, model: keras.Model, defense: DeepDefense) -> None:
        self.own, self.model, self.defense = model.compute_loss, model, defense
        self.asked = False  # for a loss to train on

    def __call__(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> Any:
        self.asked = self.asked or training
        loss = self.own(x, y, y_pred, sample_weight, training=training)
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
    """While it lasts, `fit` trains on the model's own loss + mean of w_i penalty(x_i, y_i).

    The w_i are the sample or class weights, if any. Only what is trained on changes, and so the
    `loss` that training logs: `evaluate`, `val_loss`, metrics, `predict`, callbacks, checkpoints
    and the optimizer's state are the model's own, and go on as they are afterwards.

    Args:
        model: compiled, of one input and of one output: logits [b k]. Labels may be class indices
            [b] or [b 1], or one-hot [b k].
        defense: the penalty, of each example as the model predicts it (dropout and batch norm at
            rest), in the dtype of its variables whatever the mixed precision policy.

    Raises:
        InputError: the model is not of logits (it ends in a softmax, say), has several inputs or
            outputs, is defended already, or trains without calling its `compute_loss`.

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
    model.train_function = None  # Keras compiles it anew, with the loss of the day
    try:
        yield model
        if model.train_function is not None and not loss.asked:
            raise InputError(
                f"{type(model).__name__}.train_step never called compute_loss, so the model was "
                "trained without Deep Defense: let it take its loss from there"
            )
    finally:
        del attributes["compute_loss"]
        attributes.update(before)
        model.train_function = None
