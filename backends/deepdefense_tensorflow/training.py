"""What training needs natively in TensorFlow: Keras models, their weights, and one SGD step."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import keras
import numpy.typing as npt
import tensorflow as tf

from deepdefense.errors import InputError
from deepdefense.training import Losses, Recipe
from deepdefense.zoo import AveragePool, Conv, Flatten, Layer, Linear, MaxPool, Network, ReLU
from deepdefense_tensorflow.weights import host, named, randomness

__all__ = ["TensorFlowTraining"]

Arrays = Mapping[str, npt.NDArray[Any]]
LossFunction = Callable[[Any, Any, tf.Tensor, Any], Losses]


def _layers(layer: Layer) -> list[keras.Layer]:
    """Keras's layers for channels last, as TensorFlow's convolutions on CPUs need them."""
    match layer:
        case Conv(name, _, outputs, size, padding):
            convolution = keras.layers.Conv2D(outputs, size, name=name)
            return [keras.layers.ZeroPadding2D(padding)] * bool(padding) + [convolution]
        case Linear(name, _, outputs):
            return [keras.layers.Dense(outputs, name=name)]
        case MaxPool(size):
            return [keras.layers.MaxPooling2D(size)]
        case AveragePool(size):
            return [keras.layers.AveragePooling2D(size)]
        case ReLU():
            return [keras.layers.ReLU()]
        case Flatten():
            return [keras.layers.Flatten()]


def _chain(network: Network) -> list[keras.Layer]:
    """All layers, between the data's channels first and the convolutions' channels last."""
    chain: list[keras.Layer] = []
    image = any(isinstance(layer, Conv) for layer in network.layers)
    for layer in network.layers:
        if image and isinstance(layer, Flatten):
            chain.append(keras.layers.Permute((3, 1, 2)))
        chain += _layers(layer)
    return [keras.layers.Permute((2, 3, 1))] * image + chain


class _Trainer:
    """SGD on one Keras model; each loss is compiled once."""

    def __init__(self, model: keras.Model, recipe: Recipe) -> None:
        self.model = model
        self._decay = recipe.weight_decay
        self._optimizer = keras.optimizers.SGD(recipe.lr, momentum=recipe.momentum)
        self._optimizer.build(model.trainable_variables)
        self._compiled: dict[LossFunction, Callable[..., Any]] = {}

    def _gradients(self, loss: LossFunction, x: tf.Tensor, y: tf.Tensor) -> Any:
        variables = [variable.value for variable in self.model.trainable_variables]
        with tf.GradientTape() as tape:
            found = loss(partial(self.model, training=True), self.model, x, y)
        gradients = tape.gradient(
            found.total, variables, unconnected_gradients=tf.UnconnectedGradients.ZERO
        )
        usable = tf.math.is_finite(found.total) & tf.math.is_finite(
            tf.linalg.global_norm(gradients)
        )
        # As PyTorch's and optax's: part of the gradient, of every parameter, before the momentum.
        decayed = [g + self._decay * w for g, w in zip(gradients, variables, strict=True)]
        return decayed, found, usable

    def step(self, loss: LossFunction, x: tf.Tensor, y: Any, lr: float) -> Losses | None:
        if loss not in self._compiled:
            self._compiled[loss] = tf.function(
                partial(self._gradients, loss), reduce_retracing=True, autograph=False
            )
        gradients, found, usable = self._compiled[loss](x, tf.convert_to_tensor(y))
        if not bool(usable):
            return None
        self._optimizer.learning_rate = lr
        self._optimizer.apply(gradients, self.model.trainable_variables)
        return Losses(*map(float, found))

    def _variables(self) -> dict[str, Any]:
        """All that is kept besides the weights, which have a layout of their own."""
        kept = {f"optimizer.{i}": v for i, v in enumerate(self._optimizer.variables)}
        return kept | {f"random.{i}": v for i, v in randomness(self.model).items()}

    def state(self) -> dict[str, npt.NDArray[Any]]:
        weights = {f"weights.{name}": weight.get() for name, weight in named(self.model).items()}
        others = self._variables().items()
        return weights | {name: host(v) for name, v in others}

    def restore(self, state: Arrays) -> None:
        for name, weight in named(self.model).items():
            weight.set(state[f"weights.{name}"])
        for name, variable in self._variables().items():
            variable.assign(state[name])


class TensorFlowTraining:
    """The training side of the TensorFlow backend. A model is Keras's."""

    def build(self, network: Network, weights: Arrays) -> keras.Model:
        if keras.backend.backend() != "tensorflow":
            raise InputError(
                f"Keras runs on {keras.backend.backend()} here: set KERAS_BACKEND=tensorflow "
                "before anything imports it, or use that framework's own backend"
            )
        dtype = next(iter(weights.values())).dtype.name
        with _policy(dtype):
            model = keras.Sequential(
                [keras.Input(network.input_shape, dtype=dtype), *_chain(network)], name=network.name
            )
        return self.load(model, weights)

    def copy(self, model: keras.Model) -> keras.Model:
        twin = keras.models.clone_model(model)
        for own, other in zip(twin.variables, model.variables, strict=True):
            own.assign(other)
        return twin

    def weights(self, model: keras.Model) -> dict[str, npt.NDArray[Any]]:
        return {name: weight.get() for name, weight in named(model).items()}

    def load(self, model: keras.Model, weights: Arrays) -> keras.Model:
        for name, weight in named(model).items():
            weight.set(weights[name])
        return model

    def trainer(self, model: keras.Model, recipe: Recipe) -> _Trainer:
        return _Trainer(model, recipe)

    @contextmanager
    def seeded(self, *seed: int) -> Iterator[None]:
        yield  # Keras draws from generators that are part of the model and of a trainer's state


@contextmanager
def _policy(dtype: str) -> Iterator[None]:
    """Layers made inside have that dtype, whatever the user's policy."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(dtype)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)
