"""Tests of the penalty in Keras' `fit`, which test_keras.py runs on each backend of Keras."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import ops

import blobs
import deepdefense as dd
from deepdefense_keras import defended
from deepdefense_keras.models import open_inference
from keras_models import (
    DEFENSE,
    Network,
    X,
    Y,
    build_functional,
    build_normed,
    build_sequential,
    build_stateful,
    compile_model,
    compute_penalties,
    copy_state,
    differentiate_objective,
)

# Keras 3.15's own `Variable.numpy()` warns under NumPy 2.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


@pytest.mark.parametrize("gradient", ["unrolled", "implicit", "chord"])
def test_a_step_descends_the_objective(gradient: Any) -> None:
    defense = dd.DeepDefense(lam=1.0, c=2.0, d=0.5, steps=2, gradient=gradient)
    model, start = compile_model(build_normed), compile_model(build_normed)
    model.train_on_batch(X, Y)  # compiles a step without the penalty, which must not be reused
    model.set_weights(start.get_weights())
    with defended(model, defense) as defended_model:
        assert defended_model is model
        loss = model.train_on_batch(X, Y)[0]
    before = [np.array(ops.convert_to_numpy(v)) for v in start.trainable_variables]
    expected, gradients = differentiate_objective(start, defense)
    assert loss == pytest.approx(expected)
    for variable, value, slope in zip(model.trainable_variables, before, gradients, strict=True):
        step = (value - ops.convert_to_numpy(variable)) / 0.1
        np.testing.assert_allclose(step, slope, rtol=1e-3, atol=1e-5)


def test_statistics_seeds_counters_and_losses_stay_unchanged() -> None:
    """With lam = 0 the attack runs, but training must equal that without a defence."""
    plain, model = compile_model(build_stateful), compile_model(build_stateful)
    keras.utils.set_random_seed(2)  # because dropout may use the framework's global state
    expected = [plain.train_on_batch(X, Y) for _ in range(2)]
    keras.utils.set_random_seed(2)
    with defended(model, dd.DeepDefense(lam=0.0, steps=2, gradient="implicit")):
        results = [model.train_on_batch(X, Y) for _ in range(2)]
    np.testing.assert_allclose(results, expected, rtol=1e-6)
    for one, other in zip(copy_state(model), copy_state(plain), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


def test_losses_of_the_last_call_are_kept() -> None:
    model = compile_model(build_stateful)
    model(ops.convert_to_tensor(X))
    expected = [id(loss) for loss in model.layers[0]._losses]
    compute_penalties(model)
    assert [id(loss) for loss in model.layers[0]._losses] == expected
    assert len(expected) == 1


def test_only_the_training_loss_contains_the_penalty(tmp_path: Path) -> None:
    model = compile_model(optimizer=keras.optimizers.Adam(0.01))
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
    assert history["loss"][-1] > after[0] + 0.5 * compute_penalties(model).mean()
    fresh = build_sequential()
    fresh(ops.convert_to_tensor(X))
    fresh.load_weights(path)
    np.testing.assert_array_equal(fresh.predict(X, verbose=0), model.predict(X, verbose=0))
    whole = keras.models.load_model(tmp_path / "whole.keras")
    for one, other in zip(copy_state(whole), copy_state(model), strict=True):
        np.testing.assert_array_equal(one, other)
    model.fit(X, Y, batch_size=6, verbose=0)
    assert int(model.optimizer.iterations) == 6  # the count continues


def test_label_formats_and_sample_weights() -> None:
    weights = np.where(np.arange(12) % 2, 0.5, 0.0).astype("float32")
    model = compile_model()
    start, penalty = model.get_weights(), compute_penalties(model)
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
        model = compile_model(loss=entropy(from_logits=True))
        with defended(model, DEFENSE):
            assert model.train_on_batch(X, labels, sample_weight=weights)[0] == pytest.approx(loss)
        for one, other in zip(model.get_weights(), expected, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", ["uint8", "float16"])
def test_examples_may_have_other_dtypes(dtype: str) -> None:
    x, model = np.abs(10 * X).astype(dtype), compile_model()
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
        ("mixed_float16", build_sequential),
        ("mixed_bfloat16", build_sequential),
        ("mixed_float16", build_functional),
        ("mixed_bfloat16", Network),
        ("mixed_float16", build_stateful),
    ],
)
def test_mixed_precision_does_not_reach_the_attack(policy: str, make: Any) -> None:
    precise = compile_model(make)
    keras.config.set_dtype_policy(policy)
    try:
        model = compile_model(make)
    finally:
        keras.config.set_dtype_policy("float32")
    model.set_weights(precise.get_weights())
    x = ops.convert_to_tensor(X)
    with open_inference(model) as f:
        logits = ops.convert_to_numpy(f(x))
    expected = ops.convert_to_numpy(precise(x, training=False))
    np.testing.assert_allclose(logits, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(compute_penalties(model), compute_penalties(precise), rtol=1e-3)
    assert keras.backend.standardize_dtype(model(x, training=False).dtype) == policy[6:]
    if make is build_sequential:
        with defended(model, DEFENSE):
            model.fit(X, Y, batch_size=12, verbose=0)
        assert all(np.isfinite(value).all() for value in model.get_weights())


def test_the_example_hardens_its_model(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in test_examples.py, `evaluate` is replaced by accuracy and rho alone."""
    monkeypatch.setattr(dd, "evaluate", blobs.summarize)
    example = Path(__file__).parents[1] / "docs" / "examples" / "keras_fit.py"
    before, after = runpy.run_path(str(example))["main"]()
    assert after.rho_2 > 1.1 * before.rho_2
    assert after.accuracy > before.accuracy - 0.02
    assert "rho_2" in capsys.readouterr().out
