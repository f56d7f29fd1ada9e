"""Tests of DeepFool against the oracle, against closed forms, and for invariances."""

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
from deepdefense.testing.linear import (
    make_linear_network,
    measure_boundary_distances,
    measure_lengths,
)
from deepdefense.testing.strategies import ORDERS, Case, cases, given
from deepdefense_numpy import oracle
from deepdefense_numpy.networks import TinyNetwork

__all__ = ["DeepFoolLaws", "DeepFoolTests", "SinglePrecisionTests"]


def find_expected_walk(
    case: Case, x: np.ndarray, y: int | None = None, **options: Any
) -> oracle.SearchResult:
    """Return the oracle's search from x; discard the drawn case if the search is ill-conditioned.

    It is ill-conditioned if it ends far away from x, where saturated activations leave gradients of
    rounding errors, or if a tiny change of x changes its result noticeably.
    """
    options = {"p": case.p, "candidates": case.candidates, **options}
    walk = oracle.deepfool(case.network, x, y, **options)
    nearby = oracle.deepfool(case.network, x + 1e-9 * case.rng.normal(size=x.shape), y, **options)
    moved = np.abs(walk.delta - nearby.delta).max()
    assume(np.abs(walk.delta).max() < 100)
    assume(moved < 1e-6 and (walk.steps, walk.success) == (nearby.steps, nearby.success))
    return walk


class _DeepFoolHarness(Harness):
    """A harness that runs DeepFool in the tested backend."""

    def run_deepfool(
        self,
        network: TinyNetwork,
        x: np.ndarray,
        y: np.ndarray | None = None,
        **options: Any,
    ) -> Perturbation:
        """Run DeepFool on a batch, and return its result in NumPy arrays."""
        model = self.build_model(network, dtype=x.dtype)
        values = (x,) if y is None else (x, y)
        perturbation: Perturbation = self.run(
            lambda *arrays: deepfool(model, *arrays, **options), *values
        )
        return perturbation


class DeepFoolTests(_DeepFoolHarness):
    """Tests of the perturbations that DeepFool finds, and of edge cases."""

    @given(cases(), st.booleans())
    def test_deepfool_equals_the_oracle(self, case: Case, labelled: bool) -> None:
        self.assume_testable(case)
        options: dict[str, Any] = {"p": case.p, "candidates": case.candidates, "steps": 10}
        result = self.run_deepfool(case.network, case.x, case.y if labelled else None, **options)
        for i, x in enumerate(case.x):
            expected = find_expected_walk(case, x, int(case.y[i]) if labelled else None, steps=10)
            np.testing.assert_allclose(result.delta[i], expected.delta, atol=DIFFERENCE)
            assert result.success[i] == expected.success
            assert result.steps[i] == expected.steps
        np.testing.assert_allclose(result.x - case.x, result.delta, atol=1e-12)

    @given(cases())
    def test_deepfool_equals_the_oracle_within_bounds(self, case: Case) -> None:
        self.assume_testable(case)
        x, bounds = np.clip(case.x, -1.5, 1.5), (-1.5, 1.5)
        options: dict[str, Any] = {"bounds": bounds, "steps": 10}
        result = self.run_deepfool(case.network, x, p=case.p, candidates=case.candidates, **options)
        for i in range(len(x)):
            expected = find_expected_walk(case, x[i], **options)
            np.testing.assert_allclose(result.delta[i], expected.delta, atol=DIFFERENCE)
            assert result.success[i] == expected.success
        assert result.x.min() >= -1.5
        assert result.x.max() <= 1.5

    @pytest.mark.parametrize("p", [1.0, 1.1, 2.0, np.inf])
    def test_steps_leave_out_coordinates_at_their_bound(self, p: float) -> None:
        """A step leaves out a coordinate that cannot move because it is at its bound.

        The coordinate with the largest gradient is at its bound from the start. A step that moves
        only the coordinate with the second-largest gradient takes it to its bound as well.
        """
        network = make_linear_network([[0.0, 0.0, 0.0, 0.0], [9.0, 3.0, 2.0, 1.0]], [0.0, -12.5])
        # The gap of the logits is 3.5. Within the bounds, the second coordinate can close 3 of it.
        x = np.array([[1.0, 0.0, 0.0, 0.0]])
        result = self.run_deepfool(network, x, p=p, bounds=(0.0, 1.0), overshoot=0.001)
        assert result.success.all()
        if p == 1:
            assert result.steps == 2
            np.testing.assert_allclose(result.delta, [[0, 1, 0.25, 0]], atol=1e-3)

    @pytest.mark.parametrize("p", [2.0, 3.0])
    def test_a_small_step_that_is_clipped_is_corrected_at_once(self, p: float) -> None:
        """The bounds clip the first coordinate, so the others must move further in this step."""
        network = make_linear_network([[0.0, 0.0, 0.0], [8.0, 1.0, 1.0]], [0.0, -9.4])
        result = self.run_deepfool(
            network, np.full((1, 3), 0.5), p=p, bounds=(0.0, 1.0), overshoot=0.001
        )
        assert result.success.all()
        assert result.steps == 2
        np.testing.assert_allclose(result.delta, [[0.5, 0.2, 0.2]], atol=1e-3)

    @given(cases(depth=(0, 0), classes=(2, 2)))
    def test_finds_the_distance_between_two_linear_classes(self, case: Case) -> None:
        self.assume_testable(case)
        result = self.run_deepfool(case.network, case.x, p=case.p, overshoot=0.0, candidates=2)
        expected = measure_boundary_distances(case.network, case.x, case.p)[:, 0]
        lengths = measure_lengths(result.delta, case.p)
        np.testing.assert_allclose(lengths, expected, rtol=DIFFERENCE)

    @given(cases(depth=(0, 0)))
    def test_linear_models_take_one_step_of_known_length(self, case: Case) -> None:
        """If every class is a candidate, one step crosses the nearest of the hyperplanes."""
        self.assume_testable(case)
        result = self.run_deepfool(case.network, case.x, p=case.p, candidates=10)
        expected = 1.02 * measure_boundary_distances(case.network, case.x, case.p).min(1)
        lengths = measure_lengths(result.delta, case.p)
        np.testing.assert_allclose(lengths, expected, rtol=DIFFERENCE)
        assert (result.steps == 1).all()
        assert result.success.all()

    @pytest.mark.parametrize("p", ORDERS)
    def test_an_example_on_the_boundary_crosses_it(self, p: float) -> None:
        network = make_linear_network([[1.0, 2.0], [3.0, -1.0]], [0.0, 0.0])
        result = self.run_deepfool(network, np.array([[3.0, 2.0]]), p=p)
        assert result.success[0]
        assert 0 < np.abs(result.delta).max() < 1e-12

    def test_vanishing_gradient_is_no_success(self) -> None:
        network = make_linear_network([[0.0, 0.0], [0.0, 0.0]], [1.0, 0.0])
        result = self.run_deepfool(network, np.array([[3.0, 2.0]]))
        np.testing.assert_array_equal(result.delta, 0)
        assert not result.success[0]
        assert result.steps[0] == 0

    def test_an_input_of_zeros_is_perturbed(self) -> None:
        network = make_linear_network([[1.0, 0.0], [0.0, 1.0]], [1.0, 0.0])
        result = self.run_deepfool(network, np.zeros((1, 2)), overshoot=0.0)
        np.testing.assert_allclose(result.delta, [[-0.5, 0.5]], atol=1e-9)

    @pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
    def test_an_example_that_is_not_finite_stays_and_is_no_success(self, bad: float) -> None:
        network = make_linear_network([[1.0, 2.0], [3.0, -1.0]], [0.0, 1.0])
        with np.errstate(invalid="ignore"):
            result = self.run_deepfool(network, np.array([[bad, 1.0], [0.3, 0.1]]))
        np.testing.assert_array_equal(result.success, [False, True])
        assert np.isfinite(result.delta[1]).all()
        assert result.delta[0, 1] == 0
        assert result.steps[0] == 0

    def test_deepfool_takes_an_empty_batch(self) -> None:
        network = make_linear_network([[1.0, 2.0], [3.0, -1.0]], [0.0, 1.0])
        for bounds in (None, (0.0, 1.0)):
            result = self.run_deepfool(network, np.zeros((0, 2)), bounds=bounds)
            assert result.delta.shape == (0, 2)
        assert result.steps.shape == (0,)


class DeepFoolLaws(_DeepFoolHarness):
    """Tests of invariances of DeepFool that hold for every backend."""

    @given(cases(), st.sampled_from([1e-3, 1.0, 1e3]), st.floats(-50, 50))
    def test_shift_and_scale_of_logits_change_no_perturbation(
        self, case: Case, scale: float, shift: float
    ) -> None:
        self.assume_testable(case)
        self._compare(case, case.network.with_logits(scale, shift))

    @given(cases())
    def test_permuting_classes_changes_no_perturbation(self, case: Case) -> None:
        self.assume_testable(case)
        order = case.rng.permutation(len(case.network.biases[-1]))
        weights, biases = case.network.weights, case.network.biases
        permuted = TinyNetwork(
            (*weights[:-1], weights[-1][order]),
            (*biases[:-1], biases[-1][order]),
            case.network.activation,
        )
        self._compare(case, permuted)

    def _compare(self, case: Case, network: TinyNetwork) -> None:
        """Check that DeepFool finds the same perturbations for `case.network` and `network`."""
        options: dict[str, Any] = {"p": case.p, "candidates": case.candidates, "steps": 5}
        for x in case.x:
            find_expected_walk(case, x, steps=5)  # discard ill-conditioned cases
        result, same = (self.run_deepfool(n, case.x, **options) for n in (case.network, network))
        np.testing.assert_allclose(result.delta, same.delta, atol=DIFFERENCE)
        np.testing.assert_array_equal(result.steps, same.steps)

    @given(cases())
    def test_perturbation_is_independent_of_batch_composition(self, case: Case) -> None:
        self.assume_testable(case)
        options: dict[str, Any] = {"p": case.p, "candidates": case.candidates, "steps": 5}
        for x in case.x:
            find_expected_walk(case, x, steps=5)  # discard ill-conditioned cases
        together = self.run_deepfool(case.network, case.x, **options)
        order = case.rng.permutation(len(case.x))
        shuffled = self.run_deepfool(case.network, case.x[order], **options)
        np.testing.assert_allclose(shuffled.delta, together.delta[order], atol=1e-9)
        for i in range(len(case.x)):
            alone = self.run_deepfool(case.network, case.x[i : i + 1], **options)
            np.testing.assert_allclose(alone.delta[0], together.delta[i], atol=1e-9)
            assert alone.steps[0] == together.steps[i]

    @given(cases())
    def test_success_means_another_predicted_class(self, case: Case) -> None:
        self.assume_testable(case)
        result = self.run_deepfool(case.network, case.x, p=case.p, candidates=case.candidates)
        assert np.isfinite(result.delta).all()
        changed = case.network(result.x).argmax(1) != case.predicted
        np.testing.assert_array_equal(result.success, changed)


class SinglePrecisionTests(_DeepFoolHarness):
    """Tests in float32. Gradients by finite differences are too inexact for them."""

    @given(cases(activations=("tanh", "relu")))
    def test_single_precision_agrees_with_double(self, case: Case) -> None:
        self.assume_testable(case)
        options: dict[str, Any] = {"p": case.p, "candidates": case.candidates, "steps": 5}
        x = case.x.astype(np.float32)
        double = self.run_deepfool(case.network, x.astype(np.float64), **options)
        assume(double.success.all() and np.abs(double.delta).max() < 10)
        nudged = self.run_deepfool(
            case.network, x + 1e-7 * case.rng.normal(size=x.shape), **options
        )
        assume(np.abs(nudged.delta - double.delta).max() < SINGLE / 10)  # well-conditioned
        single = self.run_deepfool(case.network, x, **options)
        assert single.delta.dtype == np.float32
        # Near the boundary, rounding errors decide whether DeepFool takes one more step. So compare
        # only examples for which the two precisions needed equally many steps.
        same = single.steps == double.steps
        scale = 1 + np.abs(double.delta).max()
        np.testing.assert_allclose(
            single.delta[same] / scale, double.delta[same] / scale, atol=SINGLE
        )
