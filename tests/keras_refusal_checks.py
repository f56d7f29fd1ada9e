"""Tests of Keras models and batches for which the defence raises, leaving the model unchanged."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
from keras import layers, ops

import deepdefense as dd
from deepdefense_keras import defended
from keras_models import BACKEND, DEFENSE, X, Y, build_sequential, compile_model, compute_penalties

# Keras 3.15's own `Variable.numpy()` warns under NumPy 2.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


class ModelWithoutTraining(keras.Sequential):
    def compute_loss(self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        return ops.mean(y_pred)


class ModelWithoutLoss(keras.Sequential):
    def train_step(self, *arguments: Any) -> Any:
        return ({}, arguments[0]) if BACKEND == "jax" else {}


def build_with_output(
    layer: Any, inputs: int = 1, outputs: int = 1, dtype: Any = None
) -> keras.Model:
    arrays = [keras.Input((4,), dtype=dtype) for _ in range(inputs)]
    joined = ops.cast(sum(arrays), "float32")
    return keras.Model(arrays, [layer(layers.Dense(3)(joined)) for _ in range(outputs)])


LOGITS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)

REFUSED_MODELS = {
    "no model": (lambda: sum, "keras.Model"),
    "softmax": (lambda: build_with_output(layers.Softmax()), "logits"),
    "softmax activation": (lambda: build_with_output(layers.Dense(3, "softmax")), "logits"),
    "sigmoid operation": (lambda: build_with_output(ops.sigmoid), "logits"),
    "nested": (lambda: keras.Sequential([build_with_output(layers.Softmax())]), "logits"),
    "named loss": (lambda: compile_model(loss="sparse_categorical_crossentropy"), "from_logits"),
    "loss": (lambda: compile_model(loss=keras.losses.CategoricalCrossentropy()), "from_logits"),
    "inputs": (lambda: build_with_output(layers.Dense(3), inputs=2), "one input"),
    "outputs": (lambda: build_with_output(layers.Dense(3), outputs=2), "one output"),
    "integers": (lambda: build_with_output(layers.Dense(3), dtype="int32"), "floating"),
    "no training": (lambda: ModelWithoutTraining([layers.Dense(3)]), "must take `training`"),
}


@pytest.mark.parametrize(("make", "message"), REFUSED_MODELS.values(), ids=REFUSED_MODELS)
def test_unsuitable_models_raise(make: Any, message: str) -> None:
    with pytest.raises(dd.InputError, match=message), defended(make(), DEFENSE):
        pass


def test_unsuitable_batches_raise() -> None:
    """The error comes with the first batch, before the model changes."""
    soft = keras.losses.CategoricalCrossentropy(from_logits=True)
    model = compile_model(loss=lambda y, logits: soft(y[:, :3], logits))
    start = model.get_weights()
    with defended(model, DEFENSE), pytest.raises(dd.InputError, match="labels must be"):
        model.fit(X, np.ones((12, 5)), verbose=0)
    for one, other in zip(model.get_weights(), start, strict=True):
        np.testing.assert_array_equal(one, other)
    model = compile_model(lambda: ModelWithoutLoss([layers.Dense(3)]))
    with pytest.raises(dd.InputError, match="never called compute_loss"), defended(model, DEFENSE):
        model.train_on_batch(X, Y)


def test_uncompiled_and_unbuilt_models_raise() -> None:
    model = build_sequential()
    with pytest.raises(ValueError, match="compile"), defended(model, DEFENSE):
        model.fit(X, Y)
    with pytest.raises(dd.InputError, match="call it on a batch"):
        compute_penalties(model)


def test_defended_restores_compute_loss() -> None:
    model = compile_model()
    vars(model)["compute_loss"] = patch = lambda *a, training, **k: 0.0  # a patch by the user
    with defended(model, DEFENSE):
        with pytest.raises(dd.InputError, match="already"), defended(model, DEFENSE):
            pass
        assert vars(model)["compute_loss"] is not patch
    assert vars(model)["compute_loss"] is patch
    del vars(model)["compute_loss"]
    with pytest.raises(KeyError), defended(model, DEFENSE):
        raise KeyError
    assert "compute_loss" not in vars(model)
