"""The operations of the contract in TensorFlow.

They work eagerly, in a `tf.function` (also with an unknown batch size) and under XLA.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import tensorflow as tf

from deepdefense.errors import InputError
from deepdefense.seam.contract import Backend, Fixed, State
from deepdefense.seam.validation import check_indices

__all__ = ["TensorFlowOperations"]

Forward = Callable[[tf.Tensor], tf.Tensor]


def _check_dtype(f: Forward) -> Forward:
    """Return the model with a check that its logits have the dtype of the examples.

    Keras may compute in a dtype other than that of the examples, but TensorFlow mixes no dtypes.
    """

    def forward(x: tf.Tensor) -> tf.Tensor:
        logits = f(x)
        if tf.is_tensor(logits) and logits.dtype != x.dtype:
            examples, made = x.dtype.name, logits.dtype.name
            raise InputError(
                f"the model made {made} logits of {examples} examples, and TensorFlow does not mix "
                f"the two: use tf.cast(x, tf.{made}), or a model that computes in {examples}"
            )
        return logits

    return forward


class TensorFlowOperations(Backend):
    """The operations of the contract (`deepdefense.seam.contract.Backend`) in TensorFlow."""

    name = "tensorflow"
    xp: Any = tf.experimental.numpy
    cast_hint = "tf.cast(x, tf.float32)"

    def asarray(self, value: Any, like: Any) -> tf.Tensor:
        candidates = [like] if tf.is_tensor(like) else getattr(like, "variables", ())
        first = next((v for v in candidates if tf.as_dtype(v.dtype).is_floating), None)
        value = tf.convert_to_tensor(value)
        if first is None or not value.dtype.is_floating:
            return value
        return tf.cast(value, first.dtype)

    def to_numpy(self, x: tf.Tensor) -> np.ndarray:
        return np.array(x)

    def is_concrete(self, x: tf.Tensor) -> bool:
        return hasattr(x, "numpy")  # a symbolic tensor of a graph has no method `numpy`

    def index(self, labels: Any, depth: int, like: tf.Tensor) -> tf.Tensor:
        index = tf.convert_to_tensor(labels)
        values = index.numpy() if self.is_concrete(index) else None
        check_indices(index.dtype.is_integer, index.dtype.name, values, depth)
        return tf.cast(index, tf.int64)

    def one_hot(self, index: tf.Tensor, depth: int, like: tf.Tensor) -> tf.Tensor:
        return tf.one_hot(index, depth, dtype=like.dtype)

    def take(self, values: tf.Tensor, index: tf.Tensor) -> tf.Tensor:
        return tf.gather(values, index, batch_dims=1)

    def rank(self, scores: tf.Tensor, count: int) -> tf.Tensor:
        return tf.cast(tf.math.top_k(scores, count).indices, tf.int64)

    def device_of(self, x: tf.Tensor) -> str:
        return str(x.device).rpartition("device:")[2]  # leave out the address of the machine

    def stop_gradient(self, x: tf.Tensor) -> tf.Tensor:
        return tf.stop_gradient(x)

    @contextmanager
    def precise(self) -> Iterator[None]:
        allowed = tf.config.experimental.tensor_float_32_execution_enabled()
        try:
            tf.config.experimental.enable_tensor_float_32_execution(False)
            yield
        finally:
            tf.config.experimental.enable_tensor_float_32_execution(allowed)

    @contextmanager
    def inference(self, model: Any) -> Iterator[Forward]:
        keras = sys.modules.get("keras")
        if keras and isinstance(model, keras.Layer):
            from deepdefense_keras.models import open_inference as open_keras

            with open_keras(model) as f:
                yield _check_dtype(f)
        else:
            # `exempt_from_autograph` exempts all that `deepdefense` calls, including the model. A
            # model with an `if` on tensors needs AutoGraph, so convert it explicitly.
            autograph: Any = tf.__internal__.autograph
            yield _check_dtype(autograph.tf_convert(model, autograph.control_status_ctx(), False))

    def vjp(self, f: Forward, x: tf.Tensor, *, twice: bool = True) -> tuple[tf.Tensor, Forward]:
        with tf.GradientTape(persistent=True) as tape:
            tape.watch(x)
            logits = f(x)

        def pull(cotangent: tf.Tensor) -> tf.Tensor:
            gradients: Any = tape.gradient(
                [logits],
                [x],
                output_gradients=[cotangent],
                unconnected_gradients=tf.UnconnectedGradients.ZERO,
            )
            (gradient,) = gradients
            return gradient if twice else tf.stop_gradient(gradient)

        return logits, pull

    def iterate(
        self,
        body: Callable[[State, Fixed], tuple[State, tf.Tensor]],
        state: State,
        fixed: Fixed,
        active: tf.Tensor,
        *,
        steps: int,
        differentiable: bool = False,
    ) -> State:
        def masked(state: State, active: tf.Tensor) -> tuple[State, tf.Tensor]:
            new, going = self.step_active(body, state, fixed, active)
            shaped = (tf.ensure_shape(b, a.shape) for a, b in zip(state, new, strict=True))
            return state._make(shaped), tf.ensure_shape(going, active.shape)

        state, _ = tf.while_loop(
            lambda state, active: tf.reduce_any(active),
            masked,
            (state, active),
            maximum_iterations=steps,
        )
        return state if differentiable else state._make(map(tf.stop_gradient, state))

    def softmax_cross_entropy(self, logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
        return tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits)
