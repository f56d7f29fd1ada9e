"""TensorFlow behind the seam: no algorithm, only how TensorFlow spells each operation.

The same code runs eagerly, in a `tf.function` (the batch may have any size) and under XLA.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, TypeVar

import numpy as np
import tensorflow as tf

from deepdefense.errors import InputError
from deepdefense.seam.contract import Fold
from deepdefense.seam.validation import check_indices

__all__ = ["TensorFlowSeam"]

State = TypeVar("State", bound=NamedTuple)
Fixed = TypeVar("Fixed", bound=NamedTuple)
Forward = Callable[[tf.Tensor], tf.Tensor]


def _of_one_dtype(f: Forward) -> Forward:
    """The model; logits of another dtype than its examples', which Keras may make, are told."""

    def forward(x: tf.Tensor) -> tf.Tensor:
        logits = f(x)
        if tf.is_tensor(logits) and logits.dtype != x.dtype:
            given, made = x.dtype.name, logits.dtype.name
            raise InputError(
                f"the model made {made} logits of {given} examples, and TensorFlow does not mix "
                f"the two: use tf.cast(x, tf.{made}), or a model that computes in {given}"
            )
        return logits

    return forward


class TensorFlowSeam:
    """The seam in TensorFlow."""

    name = "tensorflow"
    xp: Any = tf.experimental.numpy

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
        return hasattr(x, "numpy")  # a node of a graph has no value

    def index(self, labels: Any, depth: int, like: tf.Tensor) -> tf.Tensor:
        index = tf.convert_to_tensor(labels)
        known = index.numpy() if self.is_concrete(index) else None
        check_indices(index.dtype.is_integer, index.dtype.name, known, depth)
        return tf.cast(index, tf.int64)

    def one_hot(self, index: tf.Tensor, depth: int, like: tf.Tensor) -> tf.Tensor:
        return tf.one_hot(index, depth, dtype=like.dtype)

    def take(self, values: tf.Tensor, index: tf.Tensor) -> tf.Tensor:
        return tf.gather(values, index, batch_dims=1)

    def rank(self, scores: tf.Tensor, count: int) -> tf.Tensor:
        return tf.cast(tf.math.top_k(scores, count).indices, tf.int64)

    def euclidean(self, v: tf.Tensor) -> tf.Tensor:
        return tf.norm(v, axis=-1)

    def epsilon(self, x: tf.Tensor) -> float:
        if x.dtype not in (tf.float32, tf.float64):
            raise InputError(
                f"examples must be float32 or float64, got {x.dtype.name}: "
                "use tf.cast(x, tf.float32)"
            )
        return float(np.finfo(x.dtype.name).eps)

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

    def forward(self, f: Forward, x: tf.Tensor) -> tf.Tensor:
        return tf.stop_gradient(f(tf.stop_gradient(x)))

    @contextmanager
    def inference(self, model: Any) -> Iterator[Forward]:
        keras = sys.modules.get("keras")
        if keras and isinstance(model, keras.Layer):
            from deepdefense_keras.models import inferring

            with inferring(model) as f:
                yield _of_one_dtype(f)
        else:
            # Of what the penalty calls, AutoGraph rewrites only this, if it is at work: the core is
            # left as it is written, but the user's function may have an `if` of tensors.
            autograph: Any = tf.__internal__.autograph
            yield _of_one_dtype(autograph.tf_convert(model, autograph.control_status_ctx(), False))

    def compiled(self, f: Forward) -> Forward:
        return f

    def class_gradients(self, f: Forward, x: tf.Tensor) -> tuple[tf.Tensor, Fold]:
        logits, pull = self.vjp(f, tf.stop_gradient(x), twice=False)

        def fold(step: Callable[..., Any], state: Any, contrasts: tf.Tensor) -> Any:
            for contrast in tf.unstack(contrasts, axis=1):
                state = step(state, contrast[:, None], pull(contrast)[:, None])
            return state

        return tf.stop_gradient(logits), fold

    def vjp(
        self, f: Forward, x: tf.Tensor, *, twice: bool = True
    ) -> tuple[tf.Tensor, Callable[[tf.Tensor], tf.Tensor]]:
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
            new, going = body(state, fixed)
            kept = []
            for a, b in zip(state, new, strict=True):
                mask = tf.reshape(active, (-1,) + (1,) * (len(b.shape) - 1))
                kept.append(tf.ensure_shape(tf.where(mask, b, a), a.shape))
            return state._make(kept), tf.ensure_shape(active & going, active.shape)

        state, _ = tf.while_loop(
            lambda state, active: tf.reduce_any(active),
            masked,
            (state, active),
            maximum_iterations=steps,
        )
        return state if differentiable else state._make(map(tf.stop_gradient, state))

    def softmax_cross_entropy(self, logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
        return tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits)
