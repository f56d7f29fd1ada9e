"""Keras models of several kinds, and their objective differentiated by the framework."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import layers, ops

import deepdefense as dd

BACKEND = keras.backend.backend()

DEFENSE = dd.DeepDefense(lam=1.0, c=2.0, d=0.5, steps=2, gradient="implicit")

RNG = np.random.default_rng(0)

Y = np.arange(12) % 3

X = (np.eye(3, 4)[Y] * 2 + 0.3 * RNG.normal(size=(12, 4))).astype("float32")


@keras.saving.register_keras_serializable()
class Counter(layers.Layer):
    """A layer that counts its calls, and draws a random number in each, even in inference mode."""

    def build(self, shape: Any) -> None:
        self.count = self.add_weight(initializer="zeros", trainable=False)
        self.seed = keras.random.SeedGenerator(7)

    def call(self, x: Any) -> Any:
        self.count.assign(self.count + 1)
        return x + 0 * keras.random.normal((), seed=self.seed, dtype=x.dtype)


class Network(keras.Model):
    """A model that is a subclass of `keras.Model`."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden, self.out = layers.Dense(8, "tanh"), layers.Dense(3)

    def call(self, x: Any, training: bool = True) -> Any:
        return self.out(self.hidden(x) + (1000 if training else 0))


def build_sequential() -> keras.Model:
    """Build a sequential model of two layers."""
    return keras.Sequential([layers.Dense(8, "tanh"), layers.Dense(3)])


def build_functional() -> keras.Model:
    """Build a functional model that contains another model."""
    inputs = keras.Input((4,))
    inner = keras.Sequential([layers.Dense(8, "tanh"), layers.Dense(3)])
    return keras.Model(inputs, layers.Dense(3)(inner(inputs)))


def build_stateful() -> keras.Model:
    """Build a model whose calls change statistics, seeds, counters and losses."""
    return keras.Sequential(
        [
            keras.Input((4,)),
            layers.Dense(8, "tanh", activity_regularizer="l2"),
            layers.BatchNormalization(),
            layers.Dropout(0.3),
            Counter(),
            layers.Dense(3, kernel_regularizer="l2"),
        ]
    )


def build_normed() -> keras.Model:
    """Build a model of two layers with batch norm between them."""
    return keras.Sequential(
        [
            keras.Input((4,)),
            layers.Dense(8, "tanh"),
            layers.BatchNormalization(),
            layers.Dense(3),
        ]
    )


def compile_model(
    make: Any = build_sequential, *, optimizer: Any = None, loss: Any = None
) -> keras.Model:
    """Build a model with fixed initial weights, and compile it."""
    keras.utils.set_random_seed(1)
    model = make()
    model(ops.convert_to_tensor(X))
    model.compile(
        optimizer or keras.optimizers.SGD(0.1),
        loss or keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    return model


def copy_state(model: keras.Model) -> list[np.ndarray]:
    return [np.array(ops.convert_to_numpy(v)) for v in model.variables + model.optimizer.variables]


def compute_penalties(model: keras.Model, defense: dd.DeepDefense = DEFENSE) -> np.ndarray:
    values = defense(model, ops.convert_to_tensor(X), ops.convert_to_tensor(Y))
    return np.array(ops.convert_to_numpy(values))


def differentiate_objective(
    model: keras.Model, defense: dd.DeepDefense
) -> tuple[float, list[np.ndarray]]:
    """Return mean cross-entropy + mean penalty, and its gradient by the framework's autodiff."""
    x, y = ops.convert_to_tensor(X), ops.convert_to_tensor(Y)

    def compute_total() -> Any:
        losses = keras.losses.sparse_categorical_crossentropy(
            y, model(x, training=True), from_logits=True
        )
        return ops.mean(losses) + ops.mean(defense(model, x, y))

    variables = model.trainable_variables
    if BACKEND == "tensorflow":
        import tensorflow as tf

        with tf.GradientTape() as tape:
            loss = compute_total()
        gradients = tape.gradient(loss, [v.value for v in variables])
    elif BACKEND == "torch":
        import torch

        loss = compute_total()
        gradients = torch.autograd.grad(loss, [v.value for v in variables])
    else:
        import jax

        def compute_from(values: Any) -> Any:
            with keras.StatelessScope(state_mapping=zip(variables, values, strict=True)):
                return compute_total()

        loss, gradients = jax.jit(jax.value_and_grad(compute_from))([v.value for v in variables])
    values = [np.array(ops.convert_to_numpy(value)) for value in (loss, *gradients)]
    return float(values[0]), values[1:]
