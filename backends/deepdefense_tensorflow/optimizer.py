"""The optimizers of the TensorFlow backend: SGD, Adam and AdamW steps on one Keras model."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import keras
import numpy.typing as npt
import tensorflow as tf

from deepdefense.seam.training_contract import LossFunction, OptimizerName, StepResult
from deepdefense_tensorflow.weights import Arrays, name_weights, random_states, to_host

__all__ = ["KerasTrainer"]

BETAS, EPSILON = (0.9, 0.999), 1e-8  # of Adam and AdamW


def _make_optimizer(name: OptimizerName, momentum: float, weight_decay: float) -> Any:
    """Return Keras's optimizer of this name. `KerasTrainer.step` sets the learning rate."""
    if name == "sgd":
        return keras.optimizers.SGD(momentum=momentum)
    options = {"beta_1": BETAS[0], "beta_2": BETAS[1]}
    if name == "adam":
        return keras.optimizers.Adam(**options)
    return keras.optimizers.AdamW(**options, weight_decay=weight_decay)


class KerasTrainer:
    """A Keras model and its optimizer. The trainer compiles each loss function once.

    It implements `deepdefense.seam.training_contract.Trainer`. `TensorFlowTraining.trainer` makes
    it.
    """

    def __init__(
        self, model: keras.Model, optimizer: OptimizerName, momentum: float, weight_decay: float
    ) -> None:
        self.model = model
        self._optimizer = _make_optimizer(optimizer, momentum, weight_decay)
        # As in PyTorch and optax, SGD and Adam add weight decay to the gradient. Keras's own
        # `weight_decay` shrinks the weights outside the optimizer, which is AdamW.
        self._decay = 0.0 if optimizer == "adamw" else weight_decay
        self._optimizer.build(model.trainable_variables)
        self._compiled: dict[LossFunction, Callable[..., Any]] = {}

    def _gradients(
        self, loss: LossFunction, clip: tf.Tensor, x: tf.Tensor, y: tf.Tensor, *points: tf.Tensor
    ) -> Any:
        variables = [variable.value for variable in self.model.trainable_variables]
        with tf.GradientTape() as tape:
            losses = loss(partial(self.model, training=True), self.model, x, y, *points)
        gradients = tape.gradient(
            losses.total, variables, unconnected_gradients=tf.UnconnectedGradients.ZERO
        )
        norm = tf.linalg.global_norm(gradients)
        is_finite = tf.math.is_finite(losses.total) & tf.math.is_finite(norm)
        scale = tf.where(norm > clip, tf.math.divide_no_nan(clip, norm), tf.ones_like(norm))
        decayed = [
            scale * tf.convert_to_tensor(g) + self._decay * w
            for g, w in zip(gradients, variables, strict=True)
        ]
        return decayed, (*losses, norm), is_finite

    def step(
        self, loss: LossFunction, x: tf.Tensor, y: Any, *points: tf.Tensor, lr: float, clip: float
    ) -> StepResult | None:
        if loss not in self._compiled:
            self._compiled[loss] = tf.function(
                partial(self._gradients, loss), reduce_retracing=True, autograph=False
            )
        step = self._compiled[loss]
        limit = tf.constant(clip, x.dtype)
        gradients, terms, is_finite = step(limit, x, tf.convert_to_tensor(y), *points)
        if not bool(is_finite):
            return None
        self._optimizer.learning_rate = lr
        if isinstance(self._optimizer, keras.optimizers.Adam):
            # Keras adds epsilon to sqrt(v), the others add it to sqrt(v / (1 - 0.999^t)).
            t = int(self._optimizer.iterations.value) + 1
            self._optimizer.epsilon = EPSILON * math.sqrt(1 - BETAS[1] ** t)
        self._optimizer.apply(gradients, self.model.trainable_variables)
        return StepResult(*map(float, terms))

    def update_weights(
        self, to: Callable[[Mapping[str, tf.Tensor]], Mapping[str, tf.Tensor]]
    ) -> None:
        trained = {id(variable) for variable in self.model.trainable_variables}
        weights = {n: w for n, w in name_weights(self.model).items() if id(w.variable) in trained}
        for name, value in to({name: weight.tensor() for name, weight in weights.items()}).items():
            weights[name].set(value)

    def _variables(self) -> dict[str, Any]:
        """Return the variables of the optimizer and of dropout's random generators, by name."""
        state = {f"optimizer.{i}": v for i, v in enumerate(self._optimizer.variables)}
        return state | {f"random.{i}": v for i, v in random_states(self.model).items()}

    def state(self) -> dict[str, npt.NDArray[Any]]:
        weights = {
            f"weights.{name}": weight.get() for name, weight in name_weights(self.model).items()
        }
        others = self._variables().items()
        return weights | {name: to_host(v) for name, v in others}

    def restore(self, state: Arrays) -> None:
        for name, weight in name_weights(self.model).items():
            weight.set(state[f"weights.{name}"])
        for name, variable in self._variables().items():
            variable.assign(state[name])
