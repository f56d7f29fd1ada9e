"""rho, and the evaluation of a model on held-out data."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given

import deepdefense as dd
from deepdefense_numpy import oracle
from deepdefense_numpy.networks import TinyNetwork
from strategies import Case, cases
from subjects import Subject


@given(cases())
def test_rho_equals_the_oracle(subject: Subject, case: Case) -> None:
    delta = case.rng.normal(size=case.x.shape)
    found = dd.rho(subject.array(delta), subject.array(case.x), case.p)
    expected = [oracle.rho(d, x, case.p) for d, x in zip(delta, case.x, strict=True)]
    np.testing.assert_allclose(subject.backend.to_numpy(found), expected, rtol=1e-12)


def test_rho_of_a_zero_example_is_zero(subject: Subject) -> None:
    x, delta = (subject.array(a) for a in (np.array([[0.0, 0.0], [3.0, 4.0]]), np.ones((2, 2))))
    found = subject.backend.to_numpy(dd.rho(delta, x))
    np.testing.assert_allclose(found, [0, math.sqrt(2) / 5])


def test_rho_of_an_empty_batch_is_empty(subject: Subject) -> None:
    empty = subject.array(np.zeros((0, 3)))
    assert tuple(dd.rho(empty, empty).shape) == (0,)


def test_rho_of_two_shapes_is_an_error(subject: Subject) -> None:
    with pytest.raises(dd.InputError, match=r"delta \(2, 3\) and x \(2, 4\) must have one shape"):
        dd.rho(subject.array(np.ones((2, 3))), subject.array(np.ones((2, 4))))


@pytest.fixture
def network() -> TinyNetwork:
    return TinyNetwork.draw(np.random.default_rng(0), [4, 6, 3], "tanh")


def test_evaluate_is_the_mean_over_examples(subject: Subject, network: TinyNetwork) -> None:
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(23, 4)), rng.integers(0, 3, 23)
    walks = [oracle.deepfool(network, row) for row in x]
    ratios = [oracle.rho(w.delta, row, 2) for w, row in zip(walks, x, strict=True)]
    model = subject.model(network)
    for batch_size in (5, 100):
        report = dd.evaluate(
            model, subject.array(x), subject.array(y), p=math.inf, batch_size=batch_size
        )
        assert report.n == 23
        assert report.accuracy == pytest.approx((network(x).argmax(1) == y).mean())
        assert report.rho_2 == pytest.approx(np.mean(ratios), rel=1e-5)
        assert report.rho_2_median == pytest.approx(np.median(ratios), rel=1e-5)
        assert report.success == np.mean([w.success for w in walks])
        assert report.iterations_mean == np.mean([w.steps for w in walks])
        assert report.unmeasured == 0
        assert report.rho_p is not None
        assert 0 < report.rho_p < report.rho_2 * 2


def test_evaluate_counts_what_cannot_be_measured(subject: Subject, network: TinyNetwork) -> None:
    x = np.random.default_rng(1).normal(size=(4, 4))
    y = network(x).argmax(1)
    whole = dd.evaluate(subject.model(network), subject.array(x[2:]), subject.array(y[2:]))
    x[0, 1], x[1] = math.nan, 0
    report = dd.evaluate(subject.model(network), subject.array(x), subject.array(y))
    assert report.unmeasured == 2
    assert report.success == 0.75
    assert report.rho_2 == pytest.approx(whole.rho_2 / 2)
    assert report.accuracy <= 0.75


def test_evaluate_tells_of_bad_input(subject: Subject, network: TinyNetwork) -> None:
    model = subject.model(network)
    with pytest.raises(dd.InputError, match="no example"):
        dd.evaluate(model, subject.array(np.zeros((0, 4))), subject.array(np.zeros(0, np.int64)))
    x, y = subject.array(np.zeros((2, 4))), subject.array(np.zeros(2, np.int64))
    with pytest.raises(dd.InputError, match="batch_size must be a whole number, 1 or more"):
        dd.evaluate(model, x, y, batch_size=0)
    with pytest.raises(dd.InputError, match="p must be a number"):
        dd.evaluate(model, x, y, p=0)


def test_report_is_a_value(subject: Subject, network: TinyNetwork) -> None:
    x = np.random.default_rng(1).normal(size=(4, 4))
    y = network(x).argmax(1)
    first, second = (
        dd.evaluate(subject.model(network), subject.array(x), subject.array(y)) for _ in range(2)
    )
    assert first == second
    assert hash(first) == hash(second)
    keys = ["accuracy", "rho_2", "rho_2_median", "success", "iterations_mean", "n", "unmeasured"]
    assert list(first.as_dict()) == keys
