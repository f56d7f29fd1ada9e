"""What `test_keras` runs with each backend of Keras: the penalty is in `fit`, and nothing else."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers, ops

import blobs
import deepdefense as dd
from deepdefense_keras import defended
from deepdefense_keras.models import open_inference

# Keras 3.15's own `Variable.numpy()` under NumPy 2.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

BACKEND = keras.backend.backend()
DEFENSE = dd.DeepDefense(lam=1.0, c=2.0, d=0.5, steps=2, gradient="implicit")
RNG = np.random.default_rng(0)
Y = np.arange(12) % 3
X = (np.eye(3, 4)[Y] * 2 + 0.3 * RNG.normal(size=(12, 4))).astype("float32")


@keras.saving.register_keras_serializable()
class Counter(layers.Layer):
    """Counts its calls and draws a random number at each, in training or not."""

    def build(self, shape: Any) -> None:
        self.count = self.add_weight(initializer="zeros", trainable=False)
        self.seed = keras.random.SeedGenerator(7)

    def call(self, x: Any) -> Any:
        self.count.assign(self.count + 1)
        return x + 0 * keras.random.normal((), seed=self.seed, dtype=x.dtype)


class Network(keras.Model):
    """A subclassed model."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden, self.out = layers.Dense(8, "tanh"), layers.Dense(3)

    def call(self, x: Any, training: bool = True) -> Any:
        return self.out(self.hidden(x) + (1000 if training else 0))


def sequential() -> keras.Model:
    return keras.Sequential([layers.Dense(8, "tanh"), layers.Dense(3)])


def functional() -> keras.Model:
    inputs = keras.Input((4,))
    inner = keras.Sequential([layers.Dense(8, "tanh"), layers.Dense(3)])
    return keras.Model(inputs, layers.Dense(3)(inner(inputs)))


def eventful() -> keras.Model:
    """All that a call may change: statistics, seeds, counters and losses."""
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


def normed() -> keras.Model:
    return keras.Sequential(
        [
            keras.Input((4,)),
            layers.Dense(8, "tanh"),
            layers.BatchNormalization(),
            layers.Dense(3),
        ]
    )


def compiled(make: Any = sequential, *, optimizer: Any = None, loss: Any = None) -> keras.Model:
    """The same weights each time."""
    keras.utils.set_random_seed(1)
    model = make()
    model(ops.convert_to_tensor(X))
    model.compile(
        optimizer or keras.optimizers.SGD(0.1),
        loss or keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    return model


def state(model: keras.Model) -> list[np.ndarray]:
    return [np.array(ops.convert_to_numpy(v)) for v in model.variables + model.optimizer.variables]


def penalties(model: keras.Model, defense: dd.DeepDefense = DEFENSE) -> np.ndarray:
    values = defense(model, ops.convert_to_tensor(X), ops.convert_to_tensor(Y))
    return np.array(ops.convert_to_numpy(values))


def objective(model: keras.Model, defense: dd.DeepDefense) -> tuple[float, list[np.ndarray]]:
    """Mean cross-entropy + mean penalty, and its gradient by the framework itself."""
    x, y = ops.convert_to_tensor(X), ops.convert_to_tensor(Y)

    def total() -> Any:
        losses = keras.losses.sparse_categorical_crossentropy(
            y, model(x, training=True), from_logits=True
        )
        return ops.mean(losses) + ops.mean(defense(model, x, y))

    variables = model.trainable_variables
    if BACKEND == "tensorflow":
        import tensorflow as tf

        with tf.GradientTape() as tape:
            loss = total()
        gradients = tape.gradient(loss, [v.value for v in variables])
    elif BACKEND == "torch":
        import torch

        loss = total()
        gradients = torch.autograd.grad(loss, [v.value for v in variables])
    else:
        import jax

        def stateless(values: Any) -> Any:
            with keras.StatelessScope(state_mapping=zip(variables, values, strict=True)):
                return total()

        loss, gradients = jax.jit(jax.value_and_grad(stateless))([v.value for v in variables])
    values = [np.array(ops.convert_to_numpy(value)) for value in (loss, *gradients)]
    return float(values[0]), values[1:]


@pytest.mark.parametrize("gradient", ["unrolled", "implicit", "chord"])
def test_a_step_descends_the_objective(gradient: Any) -> None:
    defense = dd.DeepDefense(lam=1.0, c=2.0, d=0.5, steps=2, gradient=gradient)
    model, start = compiled(normed), compiled(normed)
    model.train_on_batch(X, Y)  # what Keras compiles for this must not stay
    model.set_weights(start.get_weights())
    with defended(model, defense) as same:
        assert same is model
        loss = model.train_on_batch(X, Y)[0]
    before = [np.array(ops.convert_to_numpy(v)) for v in start.trainable_variables]
    expected, gradients = objective(start, defense)
    assert loss == pytest.approx(expected)
    for variable, value, slope in zip(model.trainable_variables, before, gradients, strict=True):
        step = (value - ops.convert_to_numpy(variable)) / 0.1
        np.testing.assert_allclose(step, slope, rtol=1e-3, atol=1e-5)


def test_statistics_seeds_counters_and_losses_are_the_users() -> None:
    """With lam = 0 the attack runs, but must leave no trace in what is trained."""
    plain, model = compiled(eventful), compiled(eventful)
    keras.utils.set_random_seed(2)  # where dropout draws from the framework's global state
    expected = [plain.train_on_batch(X, Y) for _ in range(2)]
    keras.utils.set_random_seed(2)
    with defended(model, dd.DeepDefense(lam=0.0, steps=2, gradient="implicit")):
        found = [model.train_on_batch(X, Y) for _ in range(2)]
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    for one, other in zip(state(model), state(plain), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


def test_losses_of_the_last_call_are_kept() -> None:
    model = compiled(eventful)
    model(ops.convert_to_tensor(X))
    expected = [id(loss) for loss in model.layers[0]._losses]
    penalties(model)
    assert [id(loss) for loss in model.layers[0]._losses] == expected
    assert len(expected) == 1


def test_only_what_is_trained_on_changes(tmp_path: Path) -> None:
    model = compiled(optimizer=keras.optimizers.Adam(0.01))
    expected, logits = model.evaluate(X, Y, verbose=0), model.predict(X, verbose=0)
    path = str(tmp_path / "last.weights.h5")
    saving = keras.callbacks.ModelCheckpoint(path, save_weights_only=True)
    with defended(model, DEFENSE):
        assert model.evaluate(X, Y, verbose=0) == expected
        np.testing.assert_array_equal(model.predict(X, verbose=0), logits)
        history = model.fit(
            X, Y, batch_size=6, epochs=2, validation_data=(X, Y), callbacks=[saving], verbose=0
        ).history
        model.save(tmp_path / "whole.keras")
    after = model.evaluate(X, Y, verbose=0)
    assert (history["val_loss"][-1], history["val_accuracy"][-1]) == pytest.approx(tuple(after))
    assert history["loss"][-1] > after[0] + 0.5 * penalties(model).mean()
    fresh = sequential()
    fresh(ops.convert_to_tensor(X))
    fresh.load_weights(path)
    np.testing.assert_array_equal(fresh.predict(X, verbose=0), model.predict(X, verbose=0))
    whole = keras.models.load_model(tmp_path / "whole.keras")
    for one, other in zip(state(whole), state(model), strict=True):
        np.testing.assert_array_equal(one, other)
    model.fit(X, Y, batch_size=6, verbose=0)
    assert int(model.optimizer.iterations) == 6  # goes on


def test_labels_and_weights() -> None:
    weights = np.where(np.arange(12) % 2, 0.5, 0.0).astype("float32")
    model = compiled()
    start, penalty = model.get_weights(), penalties(model)
    plain = model.train_on_batch(X, Y, sample_weight=weights)[0]
    model.set_weights(start)
    with defended(model, DEFENSE):
        loss = model.train_on_batch(X, Y, sample_weight=weights)[0]
    assert loss - plain == pytest.approx((weights * penalty).mean(), rel=1e-4)
    expected = model.get_weights()
    for labels, entropy in (
        (Y[:, None].astype("float32"), keras.losses.SparseCategoricalCrossentropy),
        (np.eye(3, dtype="float32")[Y], keras.losses.CategoricalCrossentropy),
    ):
        model = compiled(loss=entropy(from_logits=True))
        with defended(model, DEFENSE):
            assert model.train_on_batch(X, labels, sample_weight=weights)[0] == pytest.approx(loss)
        for one, other in zip(model.get_weights(), expected, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", ["uint8", "float16"])
def test_examples_of_other_types(dtype: str) -> None:
    x, model = np.abs(10 * X).astype(dtype), compiled()
    start = model.get_weights()
    losses = []
    for batch in (x, x.astype("float32")):
        model.set_weights(start)
        with defended(model, DEFENSE):
            losses.append(model.train_on_batch(batch, Y)[0])
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


@pytest.mark.parametrize(
    ("policy", "make"),
    [
        ("mixed_float16", sequential),
        ("mixed_bfloat16", sequential),
        ("mixed_float16", functional),
        ("mixed_bfloat16", Network),
        ("mixed_float16", eventful),
    ],
)
def test_mixed_precision_does_not_reach_the_attack(policy: str, make: Any) -> None:
    precise = compiled(make)
    keras.config.set_dtype_policy(policy)
    try:
        model = compiled(make)
    finally:
        keras.config.set_dtype_policy("float32")
    model.set_weights(precise.get_weights())
    x = ops.convert_to_tensor(X)
    with open_inference(model) as f:
        found = ops.convert_to_numpy(f(x))
    expected = ops.convert_to_numpy(precise(x, training=False))
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(penalties(model), penalties(precise), rtol=1e-3)
    assert keras.backend.standardize_dtype(model(x, training=False).dtype) == policy[6:]
    if make is sequential:
        with defended(model, DEFENSE):
            model.fit(X, Y, batch_size=12, verbose=0)
        assert all(np.isfinite(value).all() for value in model.get_weights())


class Untold(keras.Sequential):
    def compute_loss(self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        return ops.mean(y_pred)


class Aloof(keras.Sequential):
    def train_step(self, *arguments: Any) -> Any:
        return ({}, arguments[0]) if BACKEND == "jax" else {}


def with_output(layer: Any, inputs: int = 1, outputs: int = 1, dtype: Any = None) -> keras.Model:
    arrays = [keras.Input((4,), dtype=dtype) for _ in range(inputs)]
    joined = ops.cast(sum(arrays), "float32")
    return keras.Model(arrays, [layer(layers.Dense(3)(joined)) for _ in range(outputs)])


LOGITS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
REFUSED = {
    "no model": (lambda: sum, "keras.Model"),
    "softmax": (lambda: with_output(layers.Softmax()), "logits"),
    "softmax activation": (lambda: with_output(layers.Dense(3, "softmax")), "logits"),
    "sigmoid operation": (lambda: with_output(ops.sigmoid), "logits"),
    "nested": (lambda: keras.Sequential([with_output(layers.Softmax())]), "logits"),
    "named loss": (lambda: compiled(loss="sparse_categorical_crossentropy"), "from_logits"),
    "loss": (lambda: compiled(loss=keras.losses.CategoricalCrossentropy()), "from_logits"),
    "inputs": (lambda: with_output(layers.Dense(3), inputs=2), "one input"),
    "outputs": (lambda: with_output(layers.Dense(3), outputs=2), "one output"),
    "integers": (lambda: with_output(layers.Dense(3), dtype="int32"), "floating"),
    "no training": (lambda: Untold([layers.Dense(3)]), "must take `training`"),
}


@pytest.mark.parametrize(("make", "message"), REFUSED.values(), ids=REFUSED)
def test_models_that_are_refused(make: Any, message: str) -> None:
    with pytest.raises(dd.InputError, match=message), defended(make(), DEFENSE):
        pass


def test_batches_that_are_refused() -> None:
    """On the very first batch, and without harm to the model."""
    soft = keras.losses.CategoricalCrossentropy(from_logits=True)
    model = compiled(loss=lambda y, logits: soft(y[:, :3], logits))
    start = model.get_weights()
    with defended(model, DEFENSE), pytest.raises(dd.InputError, match="labels must be"):
        model.fit(X, np.ones((12, 5)), verbose=0)
    for one, other in zip(model.get_weights(), start, strict=True):
        np.testing.assert_array_equal(one, other)
    model = compiled(lambda: Aloof([layers.Dense(3)]))
    with pytest.raises(dd.InputError, match="never called compute_loss"), defended(model, DEFENSE):
        model.train_on_batch(X, Y)


def test_uncompiled_and_unbuilt_models() -> None:
    model = sequential()
    with pytest.raises(ValueError, match="compile"), defended(model, DEFENSE):
        model.fit(X, Y)
    with pytest.raises(dd.InputError, match="call it on a batch"):
        penalties(model)


def test_everything_is_restored() -> None:
    model = compiled()
    vars(model)["compute_loss"] = own = lambda *a, training, **k: 0.0  # the user's own patch
    with defended(model, DEFENSE):
        with pytest.raises(dd.InputError, match="already"), defended(model, DEFENSE):
            pass
        assert vars(model)["compute_loss"] is not own
    assert vars(model)["compute_loss"] is own
    del vars(model)["compute_loss"]
    with pytest.raises(KeyError), defended(model, DEFENSE):
        raise KeyError
    assert "compute_loss" not in vars(model)


def test_the_example(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """As in `test_examples`, by the paper's figures alone."""
    monkeypatch.setattr(dd, "evaluate", blobs.summarize)
    example = Path(__file__).parents[1] / "docs" / "examples" / "keras_fit.py"
    before, after = runpy.run_path(str(example))["main"]()
    assert after.rho_2 > 1.1 * before.rho_2
    assert after.accuracy > before.accuracy - 0.02
    assert "rho_2" in capsys.readouterr().out
