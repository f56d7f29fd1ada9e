"""DeepFool: against the oracle, and the laws it must obey."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import assume
from hypothesis import strategies as st

from deepdefense.attacks.common.problem import Perturbation
from deepdefense.attacks.deepfool import deepfool
from deepdefense.testing.harness import DIFFERENCE, SINGLE, Harness
from deepdefense.testing.strategies import ORDERS, Case, cases, given
from deepdefense_numpy import oracle
from deepdefense_numpy.networks import TinyNetwork

__all__ = ["DeepFoolLaws", "DeepFoolTests", "SinglePrecisionTests", "linear"]


def linear(weight: list[list[float]], bias: list[float]) -> TinyNetwork:
    """A network of one layer."""
    return TinyNetwork((np.array(weight),), (np.array(bias),), "identity")


def expected_walk(case: Case, x: np.ndarray, y: int | None = None, **options: Any) -> oracle.Walk:
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


def distances(case: Case, x: np.ndarray) -> list[float]:
    """From x [d] to the boundary with each other class of a linear network."""
    weight, bias = case.network.weights[0], case.network.biases[0]
    k = int((weight @ x + bias).argmax())
    q = {1.0: math.inf, math.inf: 1.0}.get(case.p) or case.p / (case.p - 1)
    return [
        float(abs((weight[j] - weight[k]) @ x + bias[j] - bias[k]))
        / float(np.linalg.norm(weight[j] - weight[k], q))
        for j in range(len(bias))
        if j != k
    ]


class _Attacks(Harness):
    def attack(
        self,
        network: TinyNetwork,
        x: np.ndarray,
        y: np.ndarray | None = None,
        **options: Any,
    ) -> Perturbation:
        """The perturbation of every example, as NumPy's arrays."""
        model = self.model(network, dtype=x.dtype)
        values = (x,) if y is None else (x, y)
        found: Perturbation = self.run(lambda *given: deepfool(model, *given, **options), *values)
        return found


class DeepFoolTests(_Attacks):
    """What DeepFool must find."""

    @given(cases(), st.booleans())
    def test_equals_the_oracle(self, case: Case, labelled: bool) -> None:
        self.accept(case)
        options: dict[str, Any] = {"p": case.p, "candidates": case.candidates, "steps": 10}
        found = self.attack(case.network, case.x, case.y if labelled else None, **options)
        for i, x in enumerate(case.x):
            expected = expected_walk(case, x, int(case.y[i]) if labelled else None, steps=10)
            np.testing.assert_allclose(found.delta[i], expected.delta, atol=DIFFERENCE)
            assert found.success[i] == expected.success
            assert found.steps[i] == expected.steps
        np.testing.assert_allclose(found.x - case.x, found.delta, atol=1e-12)

    @given(cases())
    def test_equals_the_oracle_within_bounds(self, case: Case) -> None:
        self.accept(case)
        x, bounds = np.clip(case.x, -1.5, 1.5), (-1.5, 1.5)
        options: dict[str, Any] = {"bounds": bounds, "steps": 10}
        found = self.attack(case.network, x, p=case.p, candidates=case.candidates, **options)
        for i in range(len(x)):
            expected = expected_walk(case, x[i], **options)
            np.testing.assert_allclose(found.delta[i], expected.delta, atol=DIFFERENCE)
            assert found.success[i] == expected.success
        assert found.x.min() >= -1.5
        assert found.x.max() <= 1.5

    @pytest.mark.parametrize("p", [1.0, 1.1, 2.0, np.inf])
    def test_passes_over_what_is_at_its_bound(self, p: float) -> None:
        """The steepest coordinate is at its bound, and the next ones come to theirs on the way."""
        network = linear([[0.0, 0.0, 0.0, 0.0], [9.0, 3.0, 2.0, 1.0]], [0.0, -12.5])
        x = np.array([[1.0, 0.0, 0.0, 0.0]])  # 3.5 short of the boundary, for which 3 is too little
        found = self.attack(network, x, p=p, bounds=(0.0, 1.0), overshoot=0.001)
        assert found.success.all()
        if p == 1:
            assert found.steps == 2
            np.testing.assert_allclose(found.delta, [[0, 1, 0.25, 0]], atol=1e-3)

    @pytest.mark.parametrize("p", [2.0, 3.0])
    def test_makes_up_for_what_a_bound_cuts_off_a_small_step(self, p: float) -> None:
        """The second step goes along a coordinate that is at its bound; the others carry on."""
        network = linear([[0.0, 0.0, 0.0], [8.0, 1.0, 1.0]], [0.0, -9.4])
        found = self.attack(network, np.full((1, 3), 0.5), p=p, bounds=(0.0, 1.0), overshoot=0.001)
        assert found.success.all()
        assert found.steps == 2
        np.testing.assert_allclose(found.delta, [[0.5, 0.2, 0.2]], atol=1e-3)

    @given(cases(depth=(0, 0), classes=(2, 2)))
    def test_exact_distance_on_two_linear_classes(self, case: Case) -> None:
        self.accept(case)
        found = self.attack(case.network, case.x, p=case.p, overshoot=0.0, candidates=2)
        sizes = np.linalg.norm(found.delta.reshape(len(case.x), -1), case.p, axis=1)
        expected = [distances(case, x)[0] for x in case.x.reshape(len(case.x), -1)]
        np.testing.assert_allclose(sizes, expected, rtol=DIFFERENCE)

    @given(cases(depth=(0, 0)))
    def test_closed_form_on_linear_models(self, case: Case) -> None:
        """With every class a candidate, one step onto the nearest of the hyperplanes."""
        self.accept(case)
        found = self.attack(case.network, case.x, p=case.p, candidates=10)
        for i, x in enumerate(case.x.reshape(len(case.x), -1)):
            size = np.linalg.norm(found.delta[i].ravel(), case.p)
            np.testing.assert_allclose(size, 1.02 * min(distances(case, x)), rtol=DIFFERENCE)
            assert found.steps[i] == 1
            assert found.success[i]

    @pytest.mark.parametrize("p", ORDERS)
    def test_example_on_the_boundary_is_carried_across(self, p: float) -> None:
        network = linear([[1.0, 2.0], [3.0, -1.0]], [0.0, 0.0])
        found = self.attack(network, np.array([[3.0, 2.0]]), p=p)
        assert found.success[0]
        assert 0 < np.abs(found.delta).max() < 1e-12

    def test_vanishing_gradient_is_no_success(self) -> None:
        network = linear([[0.0, 0.0], [0.0, 0.0]], [1.0, 0.0])
        found = self.attack(network, np.array([[3.0, 2.0]]))
        np.testing.assert_array_equal(found.delta, 0)
        assert not found.success[0]
        assert found.steps[0] == 0

    def test_all_zero_input_is_perturbed(self) -> None:
        network = linear([[1.0, 0.0], [0.0, 1.0]], [1.0, 0.0])
        found = self.attack(network, np.zeros((1, 2)), overshoot=0.0)
        np.testing.assert_allclose(found.delta, [[-0.5, 0.5]], atol=1e-9)

    @pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
    def test_not_finite_is_left_alone_and_no_success(self, bad: float) -> None:
        network = linear([[1.0, 2.0], [3.0, -1.0]], [0.0, 1.0])
        with np.errstate(invalid="ignore"):
            found = self.attack(network, np.array([[bad, 1.0], [0.3, 0.1]]))
        np.testing.assert_array_equal(found.success, [False, True])
        assert np.isfinite(found.delta[1]).all()
        assert found.delta[0, 1] == 0
        assert found.steps[0] == 0

    def test_empty_batch(self) -> None:
        network = linear([[1.0, 2.0], [3.0, -1.0]], [0.0, 1.0])
        for bounds in (None, (0.0, 1.0)):
            found = self.attack(network, np.zeros((0, 2)), bounds=bounds)
            assert found.delta.shape == (0, 2)
        assert found.steps.shape == (0,)


class DeepFoolLaws(_Attacks):
    """What must hold whatever it finds: these are of the algorithm, not of its gradients."""

    @given(cases(), st.sampled_from([1e-3, 1.0, 1e3]), st.floats(-50, 50))
    def test_shift_and_scale_of_logits_change_nothing(
        self, case: Case, scale: float, shift: float
    ) -> None:
        self.accept(case)
        self._same(case, case.network.with_logits(scale, shift))

    @given(cases())
    def test_permuting_classes_changes_nothing(self, case: Case) -> None:
        self.accept(case)
        order = case.rng.permutation(len(case.network.biases[-1]))
        weights, biases = case.network.weights, case.network.biases
        permuted = TinyNetwork(
            (*weights[:-1], weights[-1][order]),
            (*biases[:-1], biases[-1][order]),
            case.network.activation,
        )
        self._same(case, permuted)

    def _same(self, case: Case, network: TinyNetwork) -> None:
        options: dict[str, Any] = {"p": case.p, "candidates": case.candidates, "steps": 5}
        for x in case.x:
            expected_walk(case, x, steps=5)  # well-posed
        found, same = (self.attack(n, case.x, **options) for n in (case.network, network))
        np.testing.assert_allclose(found.delta, same.delta, atol=DIFFERENCE)
        np.testing.assert_array_equal(found.steps, same.steps)

    @given(cases())
    def test_independent_of_batch_composition(self, case: Case) -> None:
        self.accept(case)
        options: dict[str, Any] = {"p": case.p, "candidates": case.candidates, "steps": 5}
        for x in case.x:
            expected_walk(case, x, steps=5)  # well-posed
        together = self.attack(case.network, case.x, **options)
        order = case.rng.permutation(len(case.x))
        shuffled = self.attack(case.network, case.x[order], **options)
        np.testing.assert_allclose(shuffled.delta, together.delta[order], atol=1e-9)
        for i in range(len(case.x)):
            alone = self.attack(case.network, case.x[i : i + 1], **options)
            np.testing.assert_allclose(alone.delta[0], together.delta[i], atol=1e-9)
            assert alone.steps[0] == together.steps[i]

    @given(cases())
    def test_success_means_another_prediction(self, case: Case) -> None:
        self.accept(case)
        found = self.attack(case.network, case.x, p=case.p, candidates=case.candidates)
        assert np.isfinite(found.delta).all()  # however far it wandered
        changed = case.network(found.x).argmax(1) != case.predicted
        np.testing.assert_array_equal(found.success, changed)


class SinglePrecisionTests(_Attacks):
    """Rounding, where gradients are not themselves differences."""

    @given(cases(activations=("tanh", "relu")))
    def test_single_precision_agrees_with_double(self, case: Case) -> None:
        self.accept(case)
        options: dict[str, Any] = {"p": case.p, "candidates": case.candidates, "steps": 5}
        x = case.x.astype(np.float32)
        double = self.attack(case.network, x.astype(np.float64), **options)
        assume(double.success.all() and np.abs(double.delta).max() < 10)
        nudged = self.attack(case.network, x + 1e-7 * case.rng.normal(size=x.shape), **options)
        assume(np.abs(nudged.delta - double.delta).max() < SINGLE / 10)  # well-posed in float32
        single = self.attack(case.network, x, **options)
        assert single.delta.dtype == np.float32
        # A step more or less near the boundary is a matter of rounding; where the counts agree,
        # all does.
        same = single.steps == double.steps
        scale = 1 + np.abs(double.delta).max()
        np.testing.assert_allclose(
            single.delta[same] / scale, double.delta[same] / scale, atol=SINGLE
        )
