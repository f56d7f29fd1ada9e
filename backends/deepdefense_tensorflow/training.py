"""Training in TensorFlow: Keras models, their weights, and SGD steps."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any

import keras
import numpy.typing as npt
import tensorflow as tf

from deepdefense.errors import InputError
from deepdefense.seam.training_contract import LossFunction, StepResult, TrainingBackend
from deepdefense.seam.validation import find_device
from deepdefense.zoo import Network, weight_shapes
from deepdefense_tensorflow.networks import build_graph
from deepdefense_tensorflow.weights import name_weights, random_states, to_host

__all__ = ["TensorFlowTraining"]

Arrays = Mapping[str, npt.NDArray[Any]]


class _Trainer:
    """SGD on one Keras model; each loss is compiled once."""

    def __init__(self, model: keras.Model, momentum: float, weight_decay: float) -> None:
        self.model = model
        self._decay = weight_decay
        self._optimizer = keras.optimizers.SGD(momentum=momentum)
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
        # As in PyTorch and optax, weight decay is part of the gradient of every parameter, before
        # momentum.
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
        """Return the variables of the state other than weights: of the optimizer and of dropout."""
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


class TensorFlowTraining(TrainingBackend):
    """Training in TensorFlow. A model is a Keras model."""

    @contextmanager
    def on_device(self, device: str | None) -> Iterator[None]:
        context = device and tf.device(find_device(device, _list_devices).name)
        with context or nullcontext():
            yield

    def build(self, network: Network, weights: Arrays) -> keras.Model:
        if keras.backend.backend() != "tensorflow":
            raise InputError(
                f"Keras runs on {keras.backend.backend()} here: set KERAS_BACKEND=tensorflow "
                "before anything imports it, or use that framework's own backend"
            )
        dtype = weights[next(iter(weight_shapes(network)))].dtype.name
        with _dtype_policy(dtype):
            model = build_graph(network, dtype)
        return self.load(model, weights)

    def copy(self, model: keras.Model) -> keras.Model:
        twin = keras.models.clone_model(model)
        for variable, original in zip(twin.variables, model.variables, strict=True):
            variable.assign(original)
        return twin

    def weights(self, model: keras.Model) -> dict[str, npt.NDArray[Any]]:
        if not isinstance(model, keras.Layer):
            return {}  # a plain function has no visible weights
        return {name: weight.get() for name, weight in name_weights(model).items()}

    def load(self, model: keras.Model, weights: Arrays) -> keras.Model:
        for name, weight in name_weights(model).items():
            weight.set(weights[name])
        return model

    def freeze_except(self, model: keras.Model, layer: str) -> Callable[[tf.Tensor], tf.Tensor]:
        names = {id(w.variable): name.rpartition(".")[0] for name, w in name_weights(model).items()}
        trained = [
            v.value if names[id(v)] == layer else tf.stop_gradient(v.value)
            for v in model.trainable_variables
        ]
        fixed = [v.value for v in model.non_trainable_variables]
        return lambda x: model.stateless_call(trained, fixed, x, training=False)[0]

    def trainer(
        self, model: keras.Model, *, momentum: float, weight_decay: float, seed: int
    ) -> _Trainer:
        return _Trainer(model, momentum, weight_decay)

    @contextmanager
    def fixed_seed(self, *seed: int) -> Iterator[None]:
        yield  # Keras's random generators are part of the model, and of a trainer's state


def _list_devices(kind: str) -> Any:
    return tf.config.list_logical_devices(kind.upper())


@contextmanager
def _dtype_policy(dtype: str) -> Iterator[None]:
    """Open a context in which new layers have that dtype, whatever the user's policy."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(dtype)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)
