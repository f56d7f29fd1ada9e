"""The penalty and its weight gradient: against the oracle, the naive definition, and the laws."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

import deepdefense as dd
from deepdefense_numpy import oracle
from deepdefense_numpy.networks import TinyNetwork
from strategies import Case, cases
from subjects import AUTODIFF, DIFFERENCE, NESTED, SUBJECTS, Subject, derivative

SMOOTH = ("tanh", "softplus")
# Of moderate steepness, so that the tests see every branch at values of order 1.
DEFENSE = dd.DeepDefense(lam=2.0, c=1.5, d=1.0, steps=3)


def options(defense: dd.DeepDefense) -> oracle.Options:
    names = ("lam", "c", "d", "p", "steps", "overshoot", "candidates")
    return oracle.Options(**{name: getattr(defense, name) for name in names})


def fitted(case: Case, **changes: object) -> dd.DeepDefense:
    return replace(DEFENSE, p=case.p, candidates=case.candidates, **changes)


def well_posed(case: Case, defense: dd.DeepDefense) -> None:
    """Judge only draws whose searches change smoothly: the same path beside x, and beside W.

    Where the nearest class changes, or the number of steps, the penalty has a kink or a jump, and
    a difference across it is no derivative. Distances so large that exp vanishes test nothing.
    """
    start = case.network.parameters()
    nudge = case.rng.normal(size=start.shape)
    networks = [case.network.with_parameters(start + step * nudge) for step in (0, 1e-4, -1e-4)]
    for x, y in zip(case.x, case.y, strict=True):
        paths = set()
        for network in networks:
            right = int(network(x[None]).argmax()) == y
            keywords = {"p": case.p, "steps": defense.steps, "overshoot": defense.overshoot}
            walk = (
                oracle.deepfool(network, x, int(y), candidates=case.candidates, **keywords)
                if right
                else oracle.reach(network, x, int(y), **keywords)
            )
            paths.add((walk.path, walk.success))
            assume(oracle.rho(walk.delta, x, case.p) < 5)
        assume(len(paths) == 1)


def judged(subject: Subject, case: Case, defense: dd.DeepDefense) -> None:
    assume(case.network.activation in subject.activations)
    well_posed(case, defense)


@given(cases(), st.sampled_from(["unrolled", "implicit"]))
def test_penalty_equals_the_oracle(subject: Subject, case: Case, gradient: str) -> None:
    defense = fitted(case, gradient=gradient)
    judged(subject, case, defense)
    found = defense(subject.model(case.network), subject.array(case.x), subject.array(case.y))
    expected = [
        oracle.penalty(case.network, x, int(y), **options(defense))
        for x, y in zip(case.x, case.y, strict=True)
    ]
    np.testing.assert_allclose(subject.backend.to_numpy(found), expected, rtol=DIFFERENCE)


@given(cases())
def test_objective_equals_the_oracle(subject: Subject, case: Case) -> None:
    defense = fitted(case)
    judged(subject, case, defense)
    model = subject.model(case.network)
    found = defense.objective(model, subject.array(case.x), subject.array(case.y))
    expected = oracle.objective(case.network, case.x, case.y, **options(defense))
    np.testing.assert_allclose(subject.backend.to_numpy(found), expected, rtol=DIFFERENCE)


@given(cases(activations=SMOOTH, depth=(1, 2)))
def test_weight_gradient_equals_differences_of_the_oracle(subject: Subject, case: Case) -> None:
    """The unrolled gradient, second derivatives and all, along a random direction."""
    defense = fitted(case)
    judged(subject, case, defense)
    direction = case.direction()
    found = subject.slope(
        case.network,
        lambda model: defense.objective(model, subject.array(case.x), subject.array(case.y)),
        direction,
    )
    start = case.network.parameters()

    def objective(t: float) -> float:
        network = case.network.with_parameters(start + t * direction)
        return oracle.objective(network, case.x, case.y, **options(defense))

    expected = derivative(objective)
    # Kinks that the path does not show (another coordinate for p = 1) show in another step's size.
    assume(np.isclose(expected, derivative(objective, 1e-5), rtol=1e-6, atol=1e-6))
    np.testing.assert_allclose(found, expected, rtol=NESTED, atol=NESTED)


@pytest.mark.autodiff
@given(cases(activations=SMOOTH, depth=(0, 2)))
def test_implicit_gradient_equals_the_oracle(subject: Subject, case: Case) -> None:
    defense = fitted(case, gradient="implicit")
    judged(subject, case, defense)
    direction = case.direction()
    found = subject.slope(
        case.network,
        lambda model: defense(model, subject.array(case.x), subject.array(case.y)).sum(),
        direction,
    )
    expected = sum(
        oracle.implicit_weight_gradient(case.network, x, int(y), **options(defense)) @ direction
        for x, y in zip(case.x, case.y, strict=True)
    )
    np.testing.assert_allclose(found, expected, rtol=DIFFERENCE, atol=DIFFERENCE)


@pytest.mark.autodiff
@given(cases(depth=(0, 0)))
def test_implicit_equals_unrolled_on_linear_models(subject: Subject, case: Case) -> None:
    judged(subject, case, fitted(case))
    x, y = subject.array(case.x), subject.array(case.y)
    steps = fitted(case).terms(subject.model(case.network), x, y).steps
    # A wrong example may have to overtake one class after the other. Its several steps are then not
    # the distance to any one boundary, of which the implicit gradient is the derivative.
    assume(int(subject.backend.to_numpy(steps).max()) == 1)
    direction = case.direction()
    unrolled, implicit = (
        subject.slope(
            case.network,
            partial(objective_of, fitted(case, gradient=gradient), x, y),
            direction,
        )
        for gradient in ("unrolled", "implicit")
    )
    np.testing.assert_allclose(unrolled, implicit, rtol=1e-8, atol=1e-8)


def objective_of(defense: dd.DeepDefense, x, y, model):
    return defense.objective(model, x, y)


def naive_objective(model, x, y, defense: dd.DeepDefense):
    """Deep Defense in plain torch for p = 2, every class in the graph of every iteration."""
    import torch

    total = torch.nn.functional.cross_entropy(model(x), y, reduction="sum")
    for start, label in zip(x, y, strict=True):
        clean = model(start[None])[0]
        right = bool(clean.argmax() == label)
        ranked = clean.argsort(descending=True, stable=True)[: defense.candidates].tolist()
        shift = torch.zeros_like(start)
        for _ in range(defense.steps):
            point = start + shift
            if not point.requires_grad:
                point.requires_grad_()
            logits = model(point[None])[0]
            slopes = [
                torch.autograd.grad(logit, point, create_graph=True, retain_graph=True)[0]
                for logit in logits
            ]
            others = [j for j in range(len(logits)) if j != label]
            base = int(label) if right else max(others, key=lambda j: float(logits[j].detach()))
            targets = [j for j in ranked if j != label] if right else [int(label)]
            steps = []
            for j in targets:
                gap, normal = logits[j] - logits[base], slopes[j] - slopes[base]
                steps.append((gap.abs() / normal.norm(), gap.abs() / normal.norm() ** 2 * normal))
            shift = shift + min(steps, key=lambda pair: float(pair[0].detach()))[1]
            end = model((start + (1 + defense.overshoot) * shift)[None])[0].argmax()
            if bool(end == label) != right:
                break
        rho = (1 + defense.overshoot) * shift.norm() / start.norm()
        exponent = -defense.c * rho if right else defense.d * rho
        total = total + defense.lam * exponent.exp()
    return total / len(x)


@pytest.mark.only("torch")
@given(cases(orders=(2.0,)))
def test_equals_the_naive_definition_with_every_class_in_the_graph(case: Case) -> None:
    """Replaying only the chosen classes changes neither value nor gradient."""
    subject, defense = SUBJECTS["torch"], fitted(case)
    judged(subject, case, defense)
    x, y = subject.array(case.x), subject.array(case.y)
    direction = case.direction()
    found, naive = (
        subject.slope(case.network, value, direction)
        for value in (
            lambda model: defense.objective(model, x, y),
            lambda model: naive_objective(model, x, y, defense),
        )
    )
    assume(np.isfinite(naive))  # where every ReLU is dead, the naive definition divides 0 by 0
    np.testing.assert_allclose(found, naive, rtol=AUTODIFF, atol=AUTODIFF)


@given(cases())
def test_independent_of_batch_composition(subject: Subject, case: Case) -> None:
    defense = fitted(case)
    judged(subject, case, defense)
    model = subject.model(case.network)
    x, y = subject.array(case.x), subject.array(case.y)
    together = subject.backend.to_numpy(defense(model, x, y))
    for i in range(len(case.x)):
        alone = subject.backend.to_numpy(defense(model, x[i : i + 1], y[i : i + 1]))
        np.testing.assert_allclose(alone[0], together[i], rtol=AUTODIFF)


@given(cases(), st.sampled_from([1e-2, 1e2]), st.floats(-10, 10))
def test_shift_and_scale_of_logits_change_nothing(
    subject: Subject, case: Case, scale: float, shift: float
) -> None:
    defense = fitted(case)
    judged(subject, case, defense)
    weights, biases = case.network.weights, case.network.biases
    other = TinyNetwork(
        (*weights[:-1], scale * weights[-1]),
        (*biases[:-1], scale * (biases[-1] + shift)),
        case.network.activation,
    )
    x, y = subject.array(case.x), subject.array(case.y)
    found, same = (
        subject.backend.to_numpy(defense(subject.model(network), x, y))
        for network in (case.network, other)
    )
    np.testing.assert_allclose(found, same, rtol=DIFFERENCE)


# What a penalty must do with examples that have no usable perturbation.


def gradients(subject: Subject, network: TinyNetwork, defense: dd.DeepDefense, x, y) -> np.ndarray:
    """The whole weight gradient of the summed penalty."""
    count = len(network.parameters())
    return np.array(
        [
            subject.slope(
                network,
                lambda model: defense(model, subject.array(x), subject.array(y)).sum(),
                direction,
            )
            for direction in np.eye(count)
        ]
    )


@pytest.fixture
def network() -> TinyNetwork:
    return TinyNetwork.draw(np.random.default_rng(0), [2, 4, 3], "tanh")


@pytest.mark.parametrize("gradient", ["unrolled", "implicit"])
@pytest.mark.parametrize("p", [1.0, 1.5, 2.0, 3.0, math.inf])
class TestEdges:
    def test_not_finite_example_has_no_penalty_and_no_gradient(
        self, subject: Subject, network: TinyNetwork, gradient: str, p: float
    ) -> None:
        defense = replace(DEFENSE, gradient=gradient, p=p)
        x = np.array([[math.nan, 1.0], [0.5, -0.4]])
        y = network(np.nan_to_num(x)).argmax(1)
        terms = defense.terms(subject.model(network), subject.array(x), subject.array(y))
        penalty = subject.backend.to_numpy(terms.penalty)
        assert penalty[0] == 0
        assert penalty[1] > 0
        np.testing.assert_array_equal(subject.backend.to_numpy(terms.measured), [False, True])
        np.testing.assert_allclose(
            gradients(subject, network, defense, x, y),
            gradients(subject, network, defense, x[1:], y[1:]),
            rtol=NESTED,
            atol=NESTED,
        )

    def test_zero_example_has_no_penalty_and_no_gradient(
        self, subject: Subject, network: TinyNetwork, gradient: str, p: float
    ) -> None:
        defense = replace(DEFENSE, gradient=gradient, p=p)
        x, y = np.zeros((1, 2)), network(np.zeros((1, 2))).argmax(1)
        terms = defense.terms(subject.model(network), subject.array(x), subject.array(y))
        assert subject.backend.to_numpy(terms.penalty)[0] == 0
        assert not bool(terms.measured[0])
        np.testing.assert_array_equal(gradients(subject, network, defense, x, y), 0)

    def test_vanishing_gradient_gives_a_constant(
        self, subject: Subject, gradient: str, p: float
    ) -> None:
        defense = replace(DEFENSE, gradient=gradient, p=p)
        flat = TinyNetwork((np.zeros((2, 2)),), (np.array([1.0, 0.0]),), "identity")
        x, y = np.ones((1, 2)), np.array([0])
        terms = defense.terms(subject.model(flat), subject.array(x), subject.array(y))
        assert subject.backend.to_numpy(terms.penalty)[0] == defense.lam
        assert not bool(terms.success[0])
        assert not bool(terms.measured[0])
        if subject.autodiff:  # a difference would step off the flat network
            np.testing.assert_array_equal(gradients(subject, flat, defense, x, y), 0)

    @pytest.mark.autodiff
    def test_example_on_the_boundary_is_pushed_off_it(
        self, subject: Subject, gradient: str, p: float
    ) -> None:
        defense = replace(DEFENSE, gradient=gradient, p=p)
        weight = np.array([[1.0, 2.0], [3.0, -1.0]])
        model = TinyNetwork((weight,), (np.zeros(2),), "identity")
        slope = gradients(subject, model, defense, np.array([[3.0, 2.0]]), np.array([0]))
        assert np.isfinite(slope).all()
        assert slope[4] < 0 < slope[5]  # descent raises the label's bias, lowers the other's


def test_wrong_branch_goes_on_along_its_tangent(subject: Subject) -> None:
    """exp(d rho) for any d rho up to 10, and no overflow beyond."""
    network = TinyNetwork((np.eye(2),), (np.zeros(2),), "identity")
    x, y = np.array([[1.0, 0.0]]), np.array([1])  # wrong, at distance 1 / sqrt(2) from right
    rho = 1 / math.sqrt(2)
    for d, expected in (
        (2.0, math.exp(2 * rho)),
        (100.0, math.exp(10) * (1 + 100 * rho - 10)),
        (1e6, math.exp(10) * (1 + 1e6 * rho - 10)),
    ):
        defense = dd.DeepDefense(lam=1.0, d=d, overshoot=0.0)
        found = defense(subject.model(network), subject.array(x), subject.array(y))
        np.testing.assert_allclose(subject.backend.to_numpy(found), [expected], rtol=DIFFERENCE)


def test_unfinished_examples_can_be_dropped(subject: Subject) -> None:
    network = TinyNetwork.draw(np.random.default_rng(3), [2, 6, 3], "tanh")
    x = np.random.default_rng(4).normal(size=(40, 2))
    y = network(x).argmax(1)
    kept, dropped = (
        replace(DEFENSE, steps=1, overshoot=0.0, unfinished=choice).terms(
            subject.model(network), subject.array(x), subject.array(y)
        )
        for choice in ("keep", "drop")
    )
    success = subject.backend.to_numpy(kept.success)
    assert 0 < success.sum() < len(success)
    penalties = [subject.backend.to_numpy(terms.penalty) for terms in (kept, dropped)]
    assert (penalties[0] > 0).all()
    np.testing.assert_array_equal(penalties[1], np.where(success, penalties[0], 0))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lam": -1.0}, "lam must be finite, 0 or more, got -1.0"),
        ({"c": math.nan}, "c must be finite"),
        ({"d": "5"}, "d must be a number"),
        ({"p": 0.9}, "p must be a number from 1 to inf"),
        ({"steps": 0}, "steps must be a whole number, 1 or more"),
        ({"candidates": 1}, "candidates must be a whole number, 2 or more"),
        ({"gradient": "exact"}, "gradient must be one of unrolled, implicit, got 'exact'"),
        ({"unfinished": "no"}, "unfinished must be one of keep, drop"),
    ],
)
def test_bad_settings_are_told(changes: dict, message: str) -> None:
    with pytest.raises(dd.InputError, match=message):
        dd.DeepDefense(**changes)


def test_is_a_value() -> None:
    assert dd.DeepDefense() == dd.DeepDefense(p=2)
    assert hash(dd.DeepDefense()) == hash(dd.DeepDefense(p=2))
    assert repr(dd.DeepDefense()).startswith("DeepDefense(lam=15.0, c=25.0, d=5.0, p=2")
