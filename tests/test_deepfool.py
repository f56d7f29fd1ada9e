"""DeepFool: against the oracle, and the laws it must obey."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

import deepdefense as dd
from deepdefense_numpy import oracle
from deepdefense_numpy.networks import TinyNetwork
from strategies import ORDERS, Case, cases
from subjects import DIFFERENCE, SINGLE, Subject


def attack(subject: Subject, case: Case, x: np.ndarray | None = None, **options: object):
    """The perturbation of every example, as NumPy arrays."""
    assume(case.network.activation in subject.activations)
    options = {"p": case.p, "candidates": case.candidates, **options}
    x = case.x if x is None else x
    found = dd.deepfool(subject.model(case.network), subject.array(x), **options)
    return dd.Perturbation(*map(subject.backend.to_numpy, found))


def expected_walk(
    case: Case, x: np.ndarray, y: int | None = None, **options: object
) -> oracle.Walk:
    """The oracle's answer; only a well-posed one is a test.

    A search that wanders far from where the network has any slope is chaotic: its end changes by
    more than the tolerance when its start changes by a rounding, and out where an activation is
    saturated its slope is rounding alone. Such draws are not judged.
    """
    options = {"p": case.p, "candidates": case.candidates, **options}
    walk = oracle.deepfool(case.network, x, y, **options)
    nearby = oracle.deepfool(case.network, x + 1e-9 * case.rng.normal(size=x.shape), y, **options)
    moved = np.abs(walk.delta - nearby.delta).max()
    assume(np.abs(walk.delta).max() < 100)
    assume(moved < 1e-6 and (walk.steps, walk.success) == (nearby.steps, nearby.success))
    return walk


@given(cases(), st.booleans())
def test_equals_the_oracle(subject: Subject, case: Case, labelled: bool) -> None:
    y = subject.array(case.y) if labelled else None
    found = attack(subject, case, y=y, steps=10)
    for i, x in enumerate(case.x):
        expected = expected_walk(case, x, int(case.y[i]) if labelled else None, steps=10)
        np.testing.assert_allclose(found.delta[i], expected.delta, atol=DIFFERENCE)
        assert found.success[i] == expected.success
        assert found.steps[i] == expected.steps
    np.testing.assert_array_equal(found.x - case.x, found.delta)


@given(cases())
def test_equals_the_oracle_within_bounds(subject: Subject, case: Case) -> None:
    x, bounds = np.clip(case.x, -1.5, 1.5), (-1.5, 1.5)
    found = attack(subject, case, x, bounds=bounds, steps=10)
    for i in range(len(x)):
        expected = expected_walk(case, x[i], bounds=bounds, steps=10)
        np.testing.assert_allclose(found.delta[i], expected.delta, atol=DIFFERENCE)
        assert found.success[i] == expected.success
    assert found.x.min() >= -1.5
    assert found.x.max() <= 1.5


@given(cases(depth=(0, 0), classes=(2, 2)))
def test_exact_distance_on_two_linear_classes(subject: Subject, case: Case) -> None:
    found = attack(subject, case, overshoot=0.0, candidates=2)
    weight, bias = case.network.weights[0], case.network.biases[0]
    normal = weight[0] - weight[1]
    gaps = case.x.reshape(len(case.x), -1) @ normal + bias[0] - bias[1]
    q = {1.0: math.inf, math.inf: 1.0}.get(case.p) or case.p / (case.p - 1)
    expected = np.abs(gaps) / np.linalg.norm(normal, q)
    sizes = np.linalg.norm(found.delta.reshape(len(case.x), -1), case.p, axis=1)
    np.testing.assert_allclose(sizes, expected, rtol=DIFFERENCE)


@given(cases(depth=(0, 0)))
def test_closed_form_on_linear_models(subject: Subject, case: Case) -> None:
    """With every class a candidate, one step onto the nearest of the hyperplanes."""
    found = attack(subject, case, candidates=10)
    weight, bias = case.network.weights[0], case.network.biases[0]
    q = {1.0: math.inf, math.inf: 1.0}.get(case.p) or case.p / (case.p - 1)
    for i, x in enumerate(case.x.reshape(len(case.x), -1)):
        k = int(case.predicted[i])
        distances = [
            abs((weight[j] - weight[k]) @ x + bias[j] - bias[k])
            / np.linalg.norm(weight[j] - weight[k], q)
            for j in range(len(bias))
            if j != k
        ]
        size = np.linalg.norm(found.delta[i].ravel(), case.p)
        np.testing.assert_allclose(size, 1.02 * min(distances), rtol=DIFFERENCE)
        assert found.steps[i] == 1
        assert found.success[i]


@given(cases(), st.sampled_from([1e-3, 1.0, 1e3]), st.floats(-50, 50))
def test_shift_and_scale_of_logits_change_nothing(
    subject: Subject, case: Case, scale: float, shift: float
) -> None:
    weights, biases = case.network.weights, case.network.biases
    other = TinyNetwork(
        (*weights[:-1], scale * weights[-1]),
        (*biases[:-1], scale * (biases[-1] + shift)),
        case.network.activation,
    )
    for x in case.x:
        expected_walk(case, x, steps=5)  # well-posed
    found, same = (attack(subject, c, steps=5) for c in (case, case._replace(network=other)))
    np.testing.assert_allclose(found.delta, same.delta, atol=DIFFERENCE)
    np.testing.assert_array_equal(found.steps, same.steps)


@given(cases())
def test_independent_of_batch_composition(subject: Subject, case: Case) -> None:
    for x in case.x:
        expected_walk(case, x, steps=5)  # well-posed
    together = attack(subject, case, steps=5)
    order = case.rng.permutation(len(case.x))
    shuffled = attack(subject, case, case.x[order], steps=5)
    np.testing.assert_allclose(shuffled.delta, together.delta[order], atol=1e-9)
    for i in range(len(case.x)):
        alone = attack(subject, case, case.x[i : i + 1], steps=5)
        np.testing.assert_allclose(alone.delta[0], together.delta[i], atol=1e-9)
        assert alone.steps[0] == together.steps[i]


@given(cases())
def test_permuting_classes_changes_nothing(subject: Subject, case: Case) -> None:
    order = case.rng.permutation(len(case.network.biases[-1]))
    weights, biases = case.network.weights, case.network.biases
    other = TinyNetwork(
        (*weights[:-1], weights[-1][order]),
        (*biases[:-1], biases[-1][order]),
        case.network.activation,
    )
    for x in case.x:
        expected_walk(case, x, steps=5)  # well-posed
    found, same = (attack(subject, c, steps=5) for c in (case, case._replace(network=other)))
    np.testing.assert_allclose(found.delta, same.delta, atol=DIFFERENCE)


@pytest.mark.autodiff
@given(cases(activations=("tanh", "relu")))
def test_single_precision_agrees_with_double(subject: Subject, case: Case) -> None:
    model = subject.model(case.network).float()
    x = case.x.astype(np.float32)
    double = attack(subject, case, x.astype(np.float64), steps=5)
    assume(double.success.all() and np.abs(double.delta).max() < 10)
    nudged = attack(subject, case, x + 1e-7 * case.rng.normal(size=x.shape), steps=5)
    assume(np.abs(nudged.delta - double.delta).max() < SINGLE / 10)  # well-posed in float32
    single = dd.deepfool(model, subject.array(x), p=case.p, candidates=case.candidates, steps=5)
    # A step more or less near the boundary is a matter of rounding; where the counts agree, all do.
    same = subject.backend.to_numpy(single.steps) == double.steps
    scale = 1 + np.abs(double.delta).max()
    delta = subject.backend.to_numpy(single.delta)
    np.testing.assert_allclose(delta[same] / scale, double.delta[same] / scale, atol=SINGLE)


@given(cases())
def test_success_means_another_prediction(subject: Subject, case: Case) -> None:
    found = attack(subject, case)
    assert np.isfinite(found.delta).all()  # however far it wandered
    changed = case.network(found.x).argmax(1) != case.predicted
    np.testing.assert_array_equal(found.success, changed)


def linear(subject: Subject, weight: list[list[float]], bias: list[float]):
    network = TinyNetwork((np.array(weight),), (np.array(bias),), "identity")
    return subject.model(network)


@pytest.mark.parametrize("p", ORDERS)
def test_example_on_the_boundary_is_carried_across(subject: Subject, p: float) -> None:
    model = linear(subject, [[1.0, 2.0], [3.0, -1.0]], [0.0, 0.0])
    found = dd.deepfool(model, subject.array(np.array([[3.0, 2.0]])), p=p)
    assert bool(found.success[0])
    assert 0 < np.abs(subject.backend.to_numpy(found.delta)).max() < 1e-12


def test_vanishing_gradient_is_no_success(subject: Subject) -> None:
    model = linear(subject, [[0.0, 0.0], [0.0, 0.0]], [1.0, 0.0])
    found = dd.deepfool(model, subject.array(np.array([[3.0, 2.0]])))
    np.testing.assert_array_equal(subject.backend.to_numpy(found.delta), 0)
    assert not bool(found.success[0])
    assert int(found.steps[0]) == 0


def test_all_zero_input_is_perturbed(subject: Subject) -> None:
    model = linear(subject, [[1.0, 0.0], [0.0, 1.0]], [1.0, 0.0])
    found = dd.deepfool(model, subject.array(np.zeros((1, 2))), overshoot=0.0)
    np.testing.assert_allclose(subject.backend.to_numpy(found.delta), [[-0.5, 0.5]], atol=1e-9)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_not_finite_is_left_alone_and_no_success(subject: Subject, bad: float) -> None:
    model = linear(subject, [[1.0, 2.0], [3.0, -1.0]], [0.0, 1.0])
    x = np.array([[bad, 1.0], [0.3, 0.1]])
    with np.errstate(invalid="ignore"):
        found = dd.deepfool(model, subject.array(x))
    success = subject.backend.to_numpy(found.success)
    np.testing.assert_array_equal(success, [False, True])
    delta = subject.backend.to_numpy(found.delta)
    assert np.isfinite(delta[1]).all()
    assert delta[0, 1] == 0
    assert int(found.steps[0]) == 0


def test_empty_batch(subject: Subject) -> None:
    model = linear(subject, [[1.0, 2.0], [3.0, -1.0]], [0.0, 1.0])
    found = dd.deepfool(model, subject.array(np.zeros((0, 2))))
    assert tuple(found.delta.shape) == (0, 2)
    assert tuple(found.steps.shape) == (0,)


BAD = [
    ({"p": 0.5}, "p must be a number from 1 to inf, got 0.5"),
    ({"p": "2"}, "p must be a number"),
    ({"steps": 0}, "steps must be a whole number, 1 or more, got 0"),
    ({"candidates": 1}, "candidates must be a whole number, 2 or more, got 1"),
    ({"bounds": (1, 0)}, "low < high"),
    ({"bounds": 3}, "bounds must be a pair"),
    ({"overshoot": -1.0}, "overshoot must be finite, 0 or more"),
]


@pytest.mark.parametrize(("options", "message"), BAD)
def test_bad_settings_are_told(subject: Subject, options: dict, message: str) -> None:
    model = linear(subject, [[1.0, 2.0], [3.0, -1.0]], [0.0, 1.0])
    with pytest.raises(dd.InputError, match=message):
        dd.deepfool(model, subject.array(np.ones((1, 2))), **options)


def test_bad_input_is_told(subject: Subject) -> None:
    model = linear(subject, [[1.0, 2.0], [3.0, -1.0]], [0.0, 1.0])
    x = subject.array(np.ones((2, 2)))
    with pytest.raises(dd.InputError, match=r"labels must be class indices \[b\] with b = 2"):
        dd.deepfool(model, x, subject.array(np.array([0, 1, 1])))
    with pytest.raises(dd.InputError, match=r"labels must lie in 0\.\.1 for 2 logits, got 0\.\.7"):
        dd.deepfool(model, x, subject.array(np.array([0, 7])))
    with pytest.raises(dd.InputError, match="labels must be integers"):
        dd.deepfool(model, x, subject.array(np.array([0.0, 1.0])))
    with pytest.raises(dd.InputError, match="two classes or more"):
        dd.deepfool(linear(subject, [[1.0, 2.0]], [0.0]), x)
    with pytest.raises(dd.InputError, match=r"logits \[2 k\], it returned shape \[2\]"):
        dd.deepfool(lambda x: x.sum(1), x)
    with pytest.raises(dd.InputError, match="must be float32 or float64"):
        dd.deepfool(lambda x: x, subject.array(np.ones((2, 2), np.float16)))
