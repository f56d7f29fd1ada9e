"""Tests of the zoo's networks: names and sizes of weights, and training in each framework."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

import deepdefense as dd
from deepdefense.defenses.objective import Objective
from deepdefense.seam.training_contract import TrainingBackend, training_backend
from deepdefense.training.epoch import take_step
from deepdefense.zoo import (
    NETWORKS,
    Dropout,
    Linear,
    Network,
    ReLU,
    bn_mlp,
    initial_weights,
    is_statistic,
    lenet,
    mlp,
    nin,
    resnet18,
    weight_shapes,
)
from small import (
    FRAMEWORKS,
    PLAIN,
    SMALL,
    compute_logits,
    draw_examples,
    draw_weights,
    find_penalty_gradient,
    step_on_penalty,
)

BACKENDS = [pytest.param(n, marks=pytest.mark.only(n)) for n in FRAMEWORKS]
Shapes = Iterator[tuple[str, tuple[int, ...]]]

DROPPED = Network(
    "dropped", (8,), 3, (Linear("fc1", 8, 64), Dropout(), ReLU(), Linear("fc2", 64, 3))
)


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> TrainingBackend:
    return training_backend(request.param)


# Tests of the names and numbers of parameters


def count_parameters(network: Network) -> int:
    shapes = weight_shapes(network).items()
    return sum(math.prod(shape) for name, shape in shapes if not is_statistic(name))


def list_alexnet_weights() -> Shapes:
    kernels = {0: (64, 3, 11, 11), 3: (192, 64, 5, 5), 6: (384, 192, 3, 3)}
    kernels |= {8: (256, 384, 3, 3), 10: (256, 256, 3, 3)}
    maps = {1: (4096, 9216), 4: (4096, 4096), 6: (1000, 4096)}
    for part, weights in (("features", kernels), ("classifier", maps)):
        for place, shape in weights.items():
            yield f"{part}.{place}.weight", shape
            yield f"{part}.{place}.bias", shape[:1]


def list_resnet18_weights() -> Shapes:
    def norm(name: str, features: int) -> Shapes:
        for part in ("weight", "bias", "running_mean", "running_var"):
            yield f"{name}.{part}", (features,)
        yield f"{name}.num_batches_tracked", ()

    yield "conv1.weight", (64, 3, 7, 7)
    yield from norm("bn1", 64)
    inputs = 64
    for layer, outputs in ((1, 64), (2, 128), (3, 256), (4, 512)):
        for block in (0, 1):
            place = f"layer{layer}.{block}"
            yield f"{place}.conv1.weight", (outputs, inputs, 3, 3)
            yield from norm(f"{place}.bn1", outputs)
            yield f"{place}.conv2.weight", (outputs, outputs, 3, 3)
            yield from norm(f"{place}.bn2", outputs)
            if layer > 1 and block == 0:
                yield f"{place}.downsample.0.weight", (outputs, inputs, 1, 1)
                yield from norm(f"{place}.downsample.1", outputs)
            inputs = outputs
    yield "fc.weight", (1000, 512)
    yield "fc.bias", (1000,)


PUBLISHED = {
    "alexnet": (list_alexnet_weights, 61_100_840),
    "resnet18": (list_resnet18_weights, 11_689_512),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_names_and_shapes_equal_torchvisions(name: str) -> None:
    list_weights, count = PUBLISHED[name]
    network = NETWORKS[name]((3, 224, 224), 1000)
    assert list(weight_shapes(network).items()) == list(list_weights())
    assert count_parameters(network) == count


def test_other_networks_have_the_expected_number_of_parameters() -> None:
    """The expected numbers were counted by hand from the definitions of the networks."""
    kernels = [3 * 25 * 192, 192 * 160, 160 * 96, 96 * 25 * 192, 192 * 192, 192 * 192]
    kernels += [192 * 9 * 192, 192 * 192, 192 * 10]
    biases = [192, 160, 96, 192, 192, 192, 192, 192, 10]
    assert count_parameters(nin((3, 32, 32), 10)) == sum(kernels) + sum(biases)
    plain = 784 * 500 + 500 + 500 * 150 + 150 + 150 * 10 + 10
    assert count_parameters(mlp((1, 28, 28), 10)) == plain
    assert count_parameters(bn_mlp((1, 28, 28), 10)) == plain + 2 * (500 + 150)


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("nin", (3, 3, 9), r"network nin takes images \[c h w\] of 4 x 4 pixels or more"),
        ("nin", (784,), r"or more, got \[784\]"),
        ("alexnet", (3, 62, 64), r"alexnet takes images \[c h w\] of 63 x 63 pixels or more"),
        ("resnet18", (32, 32), r"resnet18 takes images \[c h w\] .*, got \[32, 32\]"),
    ],
)
def test_unfit_shapes_raise(name: str, shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(dd.InputError, match=message):
        NETWORKS[name](shape, 3)


def test_initial_weights_have_the_prescribed_spread() -> None:
    fixed = initial_weights(lenet((1, 28, 28), 10), 3, 79.0)
    rng = np.random.default_rng(3)
    for name, value in fixed.items():
        expected = 0 if name.endswith("bias") else rng.normal(0, 0.01, value.shape)
        np.testing.assert_array_equal(value, np.float32(expected) + np.zeros_like(value))
    for name, value in initial_weights(resnet18((3, 32, 32), 10), 3, 5.0).items():
        if value.ndim > 1:
            scale = 5.0 if name == "conv1.weight" else 1.0
            spread = scale * value.std() * math.prod(value.shape[1:]) ** 0.5
            assert spread == pytest.approx(2**0.5, rel=0.05), name
        else:
            initial = 1 if name.endswith(("weight", "var")) and name != "fc.bias" else 0
            np.testing.assert_array_equal(value, initial)
    balanced = nin((3, 32, 32), 10)
    fan_in = initial_weights(replace(balanced, spread="fan-in"), 3, 64.0)
    for name, value in initial_weights(balanced, 3, 64.0).items():
        factor = 64.0 ** (-8 / 9) if name == "conv1.weight" else 64.0 ** (1 / 9)
        np.testing.assert_allclose(value * factor, fan_in[name], rtol=1e-5)


def test_initial_weights_scale_with_the_unit_of_the_inputs() -> None:
    network = NETWORKS["mlp"]((1, 28, 28), 10)
    pixels, unit = (initial_weights(network, 0, deviation) for deviation in (79.0, 79.0 / 255))
    np.testing.assert_allclose(unit["fc1.weight"], 255 * pixels["fc1.weight"], rtol=1e-6)
    np.testing.assert_array_equal(unit["fc2.weight"], pixels["fc2.weight"])
    assert pixels["fc1.weight"].std() == pytest.approx(0.01, rel=0.01)


def test_too_small_images_for_lenet_raise() -> None:
    with pytest.raises(dd.InputError, match=r"16 x 16 pixels or more, got \[1, 8, 8\]"):
        NETWORKS["lenet"]((1, 8, 8), 10)


# Tests in each framework


def test_weights_load_with_and_without_batch_counters(
    backend: TrainingBackend, tmp_path: Path
) -> None:
    weights = draw_weights(SMALL)
    counters = {n: np.array(7) for n in weight_shapes(SMALL) if n.endswith("num_batches_tracked")}
    assert len(counters) == 4
    x, _ = draw_examples(SMALL)
    save_file(weights, tmp_path / "without.safetensors")
    save_file(weights | counters, tmp_path / "with.safetensors")
    with dd.use_backend(backend.name):
        one, other = (dd.build(SMALL, tmp_path / f"{n}.safetensors") for n in ("without", "with"))
        np.testing.assert_array_equal(
            compute_logits(backend, one, x), compute_logits(backend, other, x)
        )
        with pytest.raises(dd.InputError, match="lacks bn1"):
            dd.build(SMALL, {n: v for n, v in weights.items() if n != "bn1.running_var"})
    reloaded = backend.load(backend.copy(one), backend.weights(other))
    np.testing.assert_array_equal(
        compute_logits(backend, reloaded, x), compute_logits(backend, one, x)
    )


def test_trainer_restores_an_earlier_state_of_every_layer(backend: TrainingBackend) -> None:
    """A trainer's state includes batch-norm statistics and the random state of dropout."""
    layers = (*SMALL.layers[:-1], Dropout(0.3), SMALL.layers[-1])
    network = replace(SMALL, layers=layers)
    trainer = dd.Recipe().make_trainer(backend, backend.build(network, draw_weights(network)))
    x, y = draw_examples(network)

    def step() -> None:
        with backend.fixed_seed(0):
            assert take_step(backend, trainer, Objective(), x, y, lr=0.01) is not None

    step()
    middle = trainer.state()
    step()
    end = trainer.state()
    for part in ("bn1.running_mean", "layer1.1.downsample.1.running_var", "fc.weight"):
        assert not np.array_equal(middle[f"weights.{part}"], end[f"weights.{part}"])
    trainer.restore(middle)
    step()
    for name, value in trainer.state().items():
        np.testing.assert_array_equal(value, end[name])


def test_dropout_is_random_in_training_and_off_in_inference(backend: TrainingBackend) -> None:
    model = backend.build(DROPPED, draw_weights(DROPPED))
    trainer = PLAIN.make_trainer(backend, model)
    x, y = draw_examples(DROPPED)
    before = compute_logits(backend, trainer.model, x)
    totals = set()
    with backend.fixed_seed(0):
        for _ in range(3):
            taken = take_step(backend, trainer, Objective(), x, y, lr=0.0)
            assert taken is not None
            totals.add(taken.total)
    assert len(totals) == 3
    np.testing.assert_array_equal(compute_logits(backend, trainer.model, x), before)


def test_penalty_gradient_through_residuals_and_batch_norm_equals_differences(
    backend: TrainingBackend,
) -> None:
    """Compare slopes along a random direction of the weights. Statistics have no gradient."""
    trainer = PLAIN.make_trainer(backend, backend.build(SMALL, draw_weights(SMALL)))
    start, rng = trainer.state(), np.random.default_rng(2)
    gradient = find_penalty_gradient(backend, trainer)
    direction = {n: rng.normal(size=v.shape) for n, v in gradient.items() if not is_statistic(n)}
    sides = []
    for t in (1e-6, -1e-6):
        moved = {f"weights.{n}": start[f"weights.{n}"] + t * v for n, v in direction.items()}
        trainer.restore(start | moved)
        sides.append(step_on_penalty(backend, trainer, lr=0.0))
    slope = sum((gradient[name] * v).sum() for name, v in direction.items())
    assert slope == pytest.approx((sides[0] - sides[1]) / 2e-6, rel=1e-6)
    for name, value in gradient.items():
        assert is_statistic(name) == (not value.any()), name


@pytest.mark.only("jax")
def test_training_batch_norm_on_one_value_raises() -> None:
    network = bn_mlp((4,), 3, hidden=(5,))
    backend = training_backend("jax")
    trainer = PLAIN.make_trainer(backend, backend.build(network, draw_weights(network)))
    x, y = draw_examples(network, n=1)
    with pytest.raises(dd.InputError, match="batch norm bn1 trains on two values or more"):
        take_step(backend, trainer, Objective(), x, y, lr=0.1)


@pytest.mark.only("tensorflow")
@pytest.mark.filterwarnings("ignore:__array__:DeprecationWarning")  # Keras 3.15 warns when it saves
def test_keras_saves_and_loads_the_layers_of_the_zoo(tmp_path: Path) -> None:
    import keras

    backend = training_backend("tensorflow")
    model = backend.build(SMALL, draw_weights(SMALL))
    model.save(tmp_path / "model.keras")
    x, _ = draw_examples(SMALL)
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(
        compute_logits(backend, loaded, x), compute_logits(backend, model, x)
    )
