"""Tests of TensorFlow: graphs, XLA, AutoGraph, Keras in training mode, and mixed precision."""

from __future__ import annotations

import traceback
from functools import partial
from typing import Any

import numpy as np
import pytest

import deepdefense as dd

tf = pytest.importorskip("tensorflow", reason="TensorFlow is not installed")
import keras  # noqa: E402 - after the check that there is a TensorFlow

pytestmark = pytest.mark.only("tensorflow")

DEFENSES = [
    pytest.param(dd.DeepDefense(lam=2.0, c=2.0, d=1.0, steps=3, gradient=gradient), id=gradient)
    for gradient in ("unrolled", "implicit")
] + [pytest.param(dd.DeepDefense.fast(lam=2.0, c=2.0, d=1.0), id="fast")]


def build_network(policy: str = "float32") -> keras.Model:
    """Build a convolutional network with dropout, and with batch norm whose statistics moved."""
    keras.utils.set_random_seed(0)
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((6, 6, 2)),
            layers.Conv2D(4, 3, dtype=policy),
            layers.BatchNormalization(dtype=policy),
            layers.Activation("tanh", dtype=policy),
            layers.MaxPooling2D(2, dtype=policy),
            layers.Dropout(0.5, dtype=policy),
            layers.Flatten(dtype=policy),
            layers.Dense(5, dtype=policy),
        ]
    )
    x, _ = draw_batch()
    for _ in range(3):
        model(x, training=True)
    return model


def draw_batch() -> tuple[Any, Any]:
    rng = np.random.default_rng(1)
    x = rng.normal(size=(6, 6, 6, 2)).astype(np.float32)
    return tf.constant(x), tf.constant(rng.integers(0, 5, 6))


def copy_values(model: keras.Model) -> list[np.ndarray]:
    return [np.array(v.value.numpy()) for v in model.variables]


def differentiate(defense: dd.DeepDefense, model: keras.Model, x: Any, y: Any) -> Any:
    with tf.GradientTape() as tape:
        total = tf.reduce_sum(defense(model, x, y))
    return total, tape.gradient(total, [v.value for v in model.trainable_variables])


def assert_close(actual: Any, expected: Any, tolerance: float) -> None:
    for one, other in zip(tf.nest.flatten(actual), tf.nest.flatten(expected), strict=True):
        scale = 1 + np.abs(other).max()
        np.testing.assert_allclose(one / scale, other / scale, rtol=0, atol=tolerance)


COMPILERS = {
    "graph": lambda f, x, y: tf.function(f),
    "unknown batch": lambda f, x, y: tf.function(
        f, input_signature=[tf.TensorSpec([None, *a.shape[1:]], a.dtype) for a in (x, y)]
    ),
    "without autograph": lambda f, x, y: tf.function(f, autograph=False),
    "XLA": lambda f, x, y: tf.function(f, jit_compile=True),
}


@pytest.mark.parametrize("compiler", COMPILERS)
@pytest.mark.parametrize("defense", DEFENSES)
def test_compiled_gradient_equals_the_plain_call(defense: dd.DeepDefense, compiler: str) -> None:
    x, y = draw_batch()
    model = build_network()
    eager = differentiate(defense, model, x, y)
    compiled = COMPILERS[compiler](lambda x, y: differentiate(defense, model, x, y), x, y)
    assert_close(compiled(x, y), eager, 1e-4)
    if compiler == "unknown batch":
        assert_close(compiled(x[:2], y[:2]), differentiate(defense, model, x[:2], y[:2]), 1e-4)


@pytest.mark.parametrize("defense", DEFENSES)
@pytest.mark.parametrize("compiled", [False, True])
def test_calls_leave_the_model_unchanged(defense: dd.DeepDefense, compiled: bool) -> None:
    """The weights, the statistics and the seeds of dropout are unchanged after a call."""
    x, y = draw_batch()
    model = build_network()
    before = copy_values(model)

    def call(x: Any, y: Any) -> Any:
        return defense.terms(model, x, y).penalty, dd.deepfool(model, x).delta

    (tf.function(call) if compiled else call)(x, y)
    for actual, expected in zip(copy_values(model), before, strict=True):
        np.testing.assert_array_equal(actual, expected)


@pytest.mark.parametrize("defense", DEFENSES)
def test_penalty_uses_inference_mode_inside_a_training_step(
    defense: dd.DeepDefense,
) -> None:
    x, y = draw_batch()
    model = build_network()
    expected = tf.reduce_sum(defense(lambda x: model(x, training=False), x, y))
    seen = []

    class PenaltyLayer(keras.Layer):
        """A layer that computes the penalty of a model while Keras is in training mode."""

        def call(self, inputs: Any, training: bool = False) -> Any:
            seen.append(tf.reduce_sum(defense(model, inputs, y)))
            return inputs

    PenaltyLayer()(x, training=True)
    np.testing.assert_allclose(seen[-1], expected, rtol=1e-6)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
@pytest.mark.parametrize("defense", DEFENSES)
def test_mixed_precision_leaves_the_penalty_in_float32(
    defense: dd.DeepDefense, policy: str
) -> None:
    x, y = draw_batch()
    full, mixed = build_network(), build_network(policy)
    for one, other in zip(mixed.variables, full.variables, strict=True):
        one.assign(other.value)
    assert mixed(x).dtype != tf.float32
    policies = [layer.dtype_policy.name for layer in mixed.layers]
    expected = differentiate(defense, full, x, y)
    assert_close(differentiate(defense, mixed, x, y), expected, 1e-6)
    compiled = tf.function(lambda x, y: differentiate(defense, mixed, x, y))
    assert_close(compiled(x, y), expected, 1e-4)
    assert [layer.dtype_policy.name for layer in mixed.layers] == policies
    assert mixed(x).dtype != tf.float32


@pytest.mark.parametrize("call", [dd.deepfool, dd.DeepDefense(), dd.DeepDefense.fast()])
def test_logits_of_another_dtype_raise(call: Any) -> None:
    x, y = draw_batch()
    model = build_network()  # Keras casts its inputs to float32
    for variant in (call, tf.function(call), tf.function(call, autograph=False)):
        with pytest.raises(dd.InputError, match=r"float32 logits of float64 .* tf\.float32\)"):
            variant(model, tf.cast(x, tf.float64), y)


@tf.autograph.experimental.do_not_convert
def list_rewritten_functions() -> set[str]:
    """Return the names of those functions on the stack that AutoGraph has rewritten."""
    stack = traceback.extract_stack()
    return {frame.name for frame in stack if "__autograph_generated" in frame.filename}


@pytest.mark.parametrize(
    "call",
    [
        partial(dd.cw, steps=3, searches=2),
        dd.ddn,
        dd.deepfool,
        partial(dd.fgsm, eps=0.5),
        dd.fmn,
        partial(dd.pgd, eps=0.5, random_start=False),
        dd.superdeepfool,
        dd.DeepDefense(),
        dd.DeepDefense.fast().terms,
        dd.DeepDefense.fast().objective,
    ],
)
def test_autograph_rewrites_only_the_users_functions(
    call: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """An `if` on tensors in a model needs AutoGraph; the library's algorithms must not use it."""
    seen = []

    def model(x: Any) -> Any:
        logits = x @ tf.constant([[1.0, -1.0, 0.5], [0.5, 1.0, -1.0]])
        seen.append(list_rewritten_functions())
        if tf.reduce_mean(x) > 0:
            logits = 2.0 * logits
        return logits

    def user(x: Any, y: Any) -> Any:
        return call(model, x, y)

    x, y = tf.constant([[1.0, 0.5], [0.5, 1.0], [2.0, 0.0]]), tf.constant([0, 1, 2])
    expected = call(model, x, y)
    assert seen
    assert not any(seen)  # AutoGraph does not rewrite eager calls
    seen.clear()
    assert_close(tf.function(user)(x, y), expected, 1e-4)
    assert "AutoGraph" not in caplog.text
    # AutoGraph also rewrites the loss function, because it calls the user's model.
    assert set().union(*seen) - {"tf__objective", "tf__losses", "forward"} == {
        "tf__user",
        "tf__model",
    }


def test_attacks_have_no_gradient() -> None:
    x, y = draw_batch()
    model = build_network()
    with tf.GradientTape() as tape:
        tape.watch(x)
        total = tf.reduce_sum(tf.abs(dd.deepfool(model, x, y).delta))
    assert tape.gradient(total, model.trainable_variables[0].value) is None


def test_labels_may_have_any_integer_type() -> None:
    x, y = draw_batch()
    model = build_network()
    expected = dd.DeepDefense()(model, x, y)
    for dtype in (tf.int32, tf.uint8):
        np.testing.assert_array_equal(dd.DeepDefense()(model, x, tf.cast(y, dtype)), expected)


@pytest.mark.parametrize("allowed", [True, False])
def test_measurements_turn_tf32_off_and_restore_it(allowed: bool) -> None:
    config, seen = tf.config.experimental, []

    def model(x: Any) -> Any:
        seen.append(config.tensor_float_32_execution_enabled())
        return x @ tf.eye(3)

    before = config.tensor_float_32_execution_enabled()
    try:
        config.enable_tensor_float_32_execution(allowed)
        dd.fgs_accuracy(model, tf.eye(3), tf.range(3), [0.1])
        assert config.tensor_float_32_execution_enabled() == allowed
    finally:
        config.enable_tensor_float_32_execution(before)
    assert set(seen) == {False}


def test_evaluate_takes_host_data_and_attacks_do_not() -> None:
    x, y = draw_batch()
    model = build_network()
    assert dd.evaluate(model, x.numpy(), y.numpy()).n == len(y)
    with pytest.raises(
        dd.InputError, match="the model is of tensorflow, but the examples are of n"
    ):
        dd.deepfool(model, np.ones((2, 6, 6, 2)))


def test_the_zoo_raises_unless_keras_uses_tensorflow(monkeypatch: pytest.MonkeyPatch) -> None:
    from deepdefense.seam.training_contract import training_backend
    from deepdefense.zoo import initial_weights, mlp

    chain = mlp((4,), 3)
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    with pytest.raises(dd.InputError, match="set KERAS_BACKEND=tensorflow"):
        training_backend("tensorflow").build(chain, initial_weights(chain, 0, 1.0))
