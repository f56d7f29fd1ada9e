"""Training in TensorFlow: build and copy Keras models, and read and load their weights.

The optimizer is in optimizer.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import keras
import numpy.typing as npt
import tensorflow as tf

from deepdefense.errors import InputError
from deepdefense.seam.training_contract import OptimizerName, TrainingBackend
from deepdefense.seam.validation import find_device
from deepdefense.zoo import Network, weight_shapes
from deepdefense_tensorflow.networks import build_graph
from deepdefense_tensorflow.optimizer import KerasTrainer
from deepdefense_tensorflow.weights import Arrays, name_weights

__all__ = ["TensorFlowTraining"]


class TensorFlowTraining(TrainingBackend):
    """The training methods of the TensorFlow backend. A model is a Keras model."""

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
            return {}  # a plain function exposes no weights
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
        self,
        model: keras.Model,
        *,
        optimizer: OptimizerName,
        momentum: float,
        weight_decay: float,
        seed: int,
    ) -> KerasTrainer:
        return KerasTrainer(model, optimizer, momentum, weight_decay)

    @contextmanager
    def fixed_seed(self, *seed: int) -> Iterator[None]:
        yield  # a Keras model has its own random generators, and uses no global random state


def _list_devices(kind: str) -> Any:
    return tf.config.list_logical_devices(kind.upper())


@contextmanager
def _dtype_policy(dtype: str) -> Iterator[None]:
    """Open a context in which new layers have the given dtype, whatever the user's dtype policy."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(dtype)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)
