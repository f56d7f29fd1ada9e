"""Tests of the defences other than Deep Defense: their objectives, and that training works."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import blobs
import deepdefense as dd
from blobs import TEST, TRAIN
from deepdefense.defenses.baselines import (
    MMA,
    TRADES,
    AdversarialTraining,
    DeepFoolTraining,
    Parseval,
    PGDTraining,
)
from deepdefense.defenses.objective import Objective
from deepdefense.seam.training_contract import TrainingBackend, training_backend
from deepdefense.training.epoch import take_step

BACKENDS = [pytest.param(n, marks=pytest.mark.only(n)) for n in ("torch", "jax", "tensorflow")]
OBJECTIVES = {
    "fgs": AdversarialTraining(eps=0.2),
    "deepfool": DeepFoolTraining(),
    "pgd": PGDTraining(eps=0.2, steps=3),
    "trades": TRADES(eps=0.2, steps=3, beta=2.0),
    "mma": MMA(d_max=0.5, steps=8),
}
# A linear network of two classes, for which the attacks have closed forms. The labels are the
# predicted classes, except that of the last example, which is misclassified.
WEIGHT, BIAS = np.array([[0.6, -0.2, 0.3, 0.1], [-0.4, 0.5, 0.1, 0.2]]), np.array([0.1, -0.1])
X = np.random.default_rng(0).normal(size=(7, 4))
Y = (X @ WEIGHT.T + BIAS).argmax(1)
Y[-1] = 1 - Y[-1]


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> TrainingBackend:
    return training_backend(request.param)


def compute_logits(x: np.ndarray) -> np.ndarray:
    return x @ WEIGHT.T + BIAS


def compute_cross_entropy(x: np.ndarray, y: np.ndarray) -> float:
    z = compute_logits(x)
    return float(np.mean(np.log(np.exp(z).sum(1)) - z[np.arange(len(x)), y]))


def compute_divergence(x: np.ndarray, other: np.ndarray) -> float:
    p, q = (
        np.exp(compute_logits(v)) / np.exp(compute_logits(v)).sum(1, keepdims=True)
        for v in (x, other)
    )
    return float((p * np.log(p / q)).sum(1).mean())


def move(eps: float, p: float, label: np.ndarray, reach: np.ndarray | None = None) -> np.ndarray:
    """Return X with each correctly classified example moved away from its label's class.

    The distance is eps, or the entry of `reach` [b] if that is smaller.
    """
    direction = (WEIGHT[1] - WEIGHT[0]) * np.where(label == 0, 1, -1)[:, None]
    unit = (
        np.sign(direction)
        if p == math.inf
        else direction / np.linalg.norm(direction, axis=1, keepdims=True)
    )
    length = np.full(len(X), eps) if reach is None else np.minimum(eps, reach)
    misclassified = compute_logits(X).argmax(1) != label
    return X + np.where(misclassified, 0, length)[:, None] * unit


def compute_expected() -> dict[str, tuple[float, float]]:
    """Return for each objective its value, and the cross-entropy of the clean examples."""
    clean, predicted = compute_cross_entropy(X, Y), compute_logits(X).argmax(1)
    gap = np.abs(compute_logits(X)[:, 0] - compute_logits(X)[:, 1])
    distance = gap / np.linalg.norm(WEIGHT[0] - WEIGHT[1])
    sign = move(0.2, math.inf, Y)
    across = move(math.inf, 2, predicted, 1.02 * distance)
    margin = move(0.5, 2, Y, distance)
    return {
        "fgs": (0.5 * clean + 0.5 * compute_cross_entropy(sign, Y), clean),
        "deepfool": (compute_cross_entropy(across, Y), clean),
        "mma": (clean / 3 + 2 / 3 * compute_cross_entropy(margin, Y), clean),
    }


def take_one_step(backend: TrainingBackend, objective: Objective) -> Any:
    network = dd.zoo.mlp((4,), 2, hidden=())
    model = backend.build(network, {"fc1.weight": WEIGHT, "fc1.bias": BIAS})
    return take_step(backend, dd.Recipe().make_trainer(backend, model), objective, X, Y, lr=0.0)


@pytest.mark.parametrize("name", compute_expected())
def test_objective_equals_its_closed_form(backend: TrainingBackend, name: str) -> None:
    total, clean = compute_expected()[name]
    taken = take_one_step(backend, OBJECTIVES[name])
    # MMA attacks by DDN, which ends within 1 % of the boundary. The other attacks are exact.
    assert taken.total == pytest.approx(total, rel=2e-3 if name == "mma" else 1e-6)
    assert taken.cross_entropy == pytest.approx(clean)
    assert taken.total == pytest.approx(taken.cross_entropy + taken.penalty)


@pytest.mark.parametrize("name", sorted(OBJECTIVES))
def test_objective_works_in_a_users_own_loop(backend: TrainingBackend, name: str) -> None:
    """`objective` equals the loss of a training step, whether or not it is given the points."""
    method, taken = OBJECTIVES[name], take_one_step(backend, OBJECTIVES[name])
    network = dd.zoo.mlp((4,), 2, hidden=())
    model = backend.build(network, {"fc1.weight": WEIGHT, "fc1.bias": BIAS})
    x, y = (backend.asarray(value, model) for value in (X, Y))
    for points in ((), method.points(model, x, y)):
        value = float(backend.to_numpy(method.objective(model, x, y, *points)))
        assert value == pytest.approx(taken.total, rel=1e-5)


def test_attacks_within_eps_raise_the_loss_up_to_the_worst_case(backend: TrainingBackend) -> None:
    """PGD stops at its first adversarial point, so its loss may be below that of the full step."""
    clean, worst = compute_cross_entropy(X, Y), compute_cross_entropy(move(0.2, math.inf, Y), Y)
    assert clean < take_one_step(backend, OBJECTIVES["pgd"]).total <= worst + 1e-9
    largest = compute_divergence(X, move(0.2, math.inf, compute_logits(X).argmax(1)))
    taken = take_one_step(backend, OBJECTIVES["trades"])
    assert taken.cross_entropy == pytest.approx(clean)
    assert 0 < taken.penalty <= 2 * largest + 1e-9


@pytest.mark.parametrize("shape", [(3, 5), (5, 3)])
def test_parseval_makes_weights_orthonormal(
    backend: TrainingBackend, shape: tuple[int, int]
) -> None:
    rng = np.random.default_rng(1)
    outputs, inputs = shape
    network = dd.zoo.mlp((inputs,), outputs, hidden=())
    start = {"fc1.weight": 0.3 * rng.normal(size=shape), "fc1.bias": np.zeros(outputs)}
    trainer = dd.Recipe(weight_decay=0.0).make_trainer(backend, backend.build(network, start))
    x, y = rng.normal(size=(4, inputs)), rng.integers(0, outputs, 4)
    take_step(backend, trainer, Parseval(beta=0.1), x, y, lr=0.0)
    weight = start["fc1.weight"]
    once = 1.1 * weight - 0.1 * weight @ weight.T @ weight
    np.testing.assert_allclose(backend.weights(trainer.model)["fc1.weight"], once, rtol=1e-6)
    for _ in range(200):
        take_step(backend, trainer, Parseval(beta=0.1), x, y, lr=0.0)
    final = backend.weights(trainer.model)["fc1.weight"]
    gram = final @ final.T if outputs < inputs else final.T @ final
    np.testing.assert_allclose(gram, np.eye(min(shape)), atol=1e-6)


@pytest.mark.only("torch")
def test_parseval_scales_a_convolution_by_its_kernel_size() -> None:
    backend = training_backend("torch")
    kernel = np.random.default_rng(2).normal(size=(2, 3, 5, 5))
    found = Parseval(beta=0.1).constrain(backend, {"k": backend.asarray(kernel, lambda x: x)})
    rows = 5 * kernel.reshape(2, -1)
    expected = (1.1 * rows - 0.1 * rows @ rows.T @ rows) / 5
    np.testing.assert_allclose(backend.to_numpy(found["k"]).reshape(2, -1), expected)


@pytest.mark.only("jax")
def test_parseval_takes_a_convolution_in_the_layout_of_flax() -> None:
    """Flax stores kernels as [s t i o] and matrices as [i o]; `constrain` gets PyTorch's layout."""
    import jax

    backend, objective = training_backend("jax"), Parseval(beta=0.1)
    rng = np.random.default_rng(2)
    kernel, matrix = rng.normal(size=(2, 3, 5, 5)), rng.normal(size=(2, 3))
    parameters = {
        "conv": {"kernel": jax.numpy.asarray(kernel.transpose(2, 3, 1, 0))},
        "dense": {"kernel": jax.numpy.asarray(matrix.T)},
    }
    model = jax.tree_util.Partial(lambda parameters, x: x, parameters)
    trainer = dd.Recipe().make_trainer(backend, model)
    trainer.update_weights(lambda weights: objective.constrain(backend, weights))
    found = {name.split(".")[-2]: value for name, value in backend.weights(trainer.model).items()}
    for name, rows in (("conv", 5 * kernel.reshape(2, -1)), ("dense", matrix)):
        scale = 5 if name == "conv" else 1
        expected = (1.1 * rows - 0.1 * rows @ rows.T @ rows) / scale
        native = found[name].transpose(3, 2, 0, 1) if name == "conv" else found[name].T
        np.testing.assert_allclose(native.reshape(2, -1), expected, rtol=1e-5)


# All backends share the code of the objectives, so other frameworks train with one objective each.
TRAINED = [*(("torch", name) for name in OBJECTIVES), ("jax", "mma"), ("tensorflow", "trades")]


@pytest.mark.parametrize(
    ("framework", "name"),
    [pytest.param(*case, marks=pytest.mark.only(case[0])) for case in TRAINED],
)
def test_trains_a_network_to_be_more_robust(framework: str, name: str) -> None:
    backend = training_backend(framework)
    network = dd.zoo.mlp((1, 4, 4), 3, hidden=(12,))
    weights = dd.zoo.initial_weights(network, 0, 5.0)
    model = backend.build(network, weights)
    plain, _ = dd.harden(
        model, TRAIN, TEST, defense=Objective(), recipe=replace(blobs.RECIPE, lr=0.1, batch_size=30)
    )
    _, report = dd.harden(
        plain, TRAIN, TEST, defense=OBJECTIVES[name], recipe=replace(blobs.RECIPE, batch_size=30)
    )
    assert report.stopped is None
    assert report.after.accuracy >= report.before.accuracy - 0.05
    assert report.after.rho_2 > 1.02 * report.before.rho_2
    assert report.as_dict()["config"]["method"] == type(OBJECTIVES[name]).__name__


@pytest.mark.only("torch")
def test_bad_settings_raise() -> None:
    for make, message in (
        (lambda: AdversarialTraining(alpha=1.0), "alpha must be finite, 0 or more and less than 1"),
        (lambda: PGDTraining(eps=-1.0), "eps must be finite, 0 or more"),
        (lambda: TRADES(p=1), "p must be 2 or inf"),
        (lambda: TRADES(bounds=(1.0, 0.0)), "bounds must be a pair .low, high. with low < high"),
        (lambda: MMA(d_max=math.nan), "d_max must be finite"),
        (lambda: Parseval(beta=2.0), "beta must be finite, 0 or more and less than 1"),
        (lambda: DeepFoolTraining(steps=0), "steps must be a whole number"),
    ):
        with pytest.raises(dd.InputError, match=message):
            make()
