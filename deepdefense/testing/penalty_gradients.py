"""Tests of the penalty's implicit and chord gradients, and of edge cases of all its gradients."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import assume
from hypothesis import strategies as st

from deepdefense.defenses.deep_defense import DeepDefense
from deepdefense.testing.harness import DIFFERENCE
from deepdefense.testing.linear import make_linear_network
from deepdefense.testing.penalty_harness import (
    EDGE_DEFENSES,
    SMOOTH_ACTIVATIONS,
    PenaltyHarness,
    make_defense,
    make_oracle_options,
)
from deepdefense.testing.strategies import Case, cases, given
from deepdefense_numpy import oracle

__all__ = ["EdgeTests", "ImplicitLaws", "ImplicitTests"]


class ImplicitTests(PenaltyHarness):
    """Tests of the implicit and chord gradients against the oracle.

    Finite differences of the penalty cannot test these gradients, because they are not its exact
    derivatives.
    """

    @given(cases(activations=SMOOTH_ACTIVATIONS, depth=(0, 2)))
    def test_implicit_gradient_equals_the_oracle(self, case: Case) -> None:
        defense = make_defense(case, gradient="implicit")
        self.assume_smooth(case, defense)
        direction = case.draw_direction()
        result = self.find_penalty_slope(defense, case.network, case.x, case.y, direction)
        expected = sum(
            oracle.implicit_weight_gradient(case.network, x, int(y), **make_oracle_options(defense))
            @ direction
            for x, y in zip(case.x, case.y, strict=True)
        )
        np.testing.assert_allclose(result, expected, rtol=DIFFERENCE, atol=DIFFERENCE)

    @given(
        cases(activations=SMOOTH_ACTIVATIONS, depth=(0, 2)),
        st.integers(1, 3),
        st.sampled_from([None, (-1.0, 1.0)]),
    )
    def test_chord_equals_the_oracle(
        self, case: Case, steps: int, bounds: tuple[float, float] | None
    ) -> None:
        """Compare the penalty and its chord gradient with the oracle."""
        if bounds is not None:
            assume(case.p > 1)
            case = case._replace(x=np.clip(case.x, *bounds))
        defense = make_defense(case, gradient="chord", steps=steps, bounds=bounds)
        self.assume_smooth(case, defense)
        direction = case.draw_direction()
        results = [
            oracle.chord_penalty(
                case.network, x, int(y), bounds=bounds, **make_oracle_options(defense)
            )
            for x, y in zip(case.x, case.y, strict=True)
        ]
        result = self.compute_penalties(defense, case.network, case.x, case.y)
        np.testing.assert_allclose(result, [value for value, _ in results], rtol=DIFFERENCE)
        slope = self.find_penalty_slope(defense, case.network, case.x, case.y, direction)
        expected = sum(gradient @ direction for _, gradient in results)
        np.testing.assert_allclose(slope, expected, rtol=DIFFERENCE, atol=DIFFERENCE)

    @pytest.mark.parametrize("p", [1.5, 2.0, 3.0, math.inf])
    def test_chord_finds_the_nearest_point_within_bounds(self, p: float) -> None:
        """Compare the penalty on a linear network, and its slope, with a penalty by bisection.

        The bisection finds the boundary on the path clip(x + t direction), where the direction is
        the steepest one.
        """
        w, bias = np.array([8.0, -4.0, 2.0, 1.0]), -9.0
        direction = np.sign(w) * np.abs(w) ** (1 / (p - 1) if p < math.inf else 0)
        # One coordinate of the first example is at a bound from the start.
        x = np.array([[0.7, 0.0, 0.9, 0.9], [0.9, 0.1, 0.5, 0.2], [0.2, 0.5, 0.5, 0.5], [0.5] * 4])

        def penalty(x: np.ndarray, bias: float) -> float:
            """Find the boundary on clip(x + t direction) by bisection; return the penalty."""

            def step(t: float) -> Any:
                return np.clip(x + t * direction, 0, 1) - x

            low, high = 0.0, 1e3
            for _ in range(100):
                t = (low + high) / 2
                low, high = (t, high) if w @ (x + step(t)) + bias < 0 else (low, t)
            return math.exp(-np.linalg.norm(step(low), p) / np.linalg.norm(x, p))

        defense = DeepDefense.fast(lam=1.0, c=1.0, p=p, overshoot=0.0, bounds=(0.0, 1.0))
        network, y = make_linear_network([[0.0] * 4, w.tolist()], [0.0, bias]), np.zeros(4, int)
        result = self.compute_penalties(defense, network, x, y)
        np.testing.assert_allclose(result, [penalty(one, bias) for one in x])
        [slope] = self.find_penalty_slopes(defense, network, x, y, np.eye(10)[-1:])
        around = (sum(penalty(one, bias + h) for one in x) for h in (1e-6, -1e-6))
        expected = (next(around) - next(around)) / 2e-6
        np.testing.assert_allclose(slope, expected, rtol=1e-4)


class ImplicitLaws(PenaltyHarness):
    """Tests on linear models, for which the implicit and the chord gradient are exact."""

    @given(cases(depth=(0, 0)))
    def test_implicit_equals_unrolled_on_linear_models(self, case: Case) -> None:
        self.assume_smooth(case, make_defense(case))
        # Discard cases with several steps: the implicit gradient differentiates the distance to one
        # boundary.
        assume(
            self.compute_terms(make_defense(case), case.network, case.x, case.y).steps.max() == 1
        )
        direction = case.draw_direction()
        unrolled, implicit = (
            self.find_penalty_slope(
                make_defense(case, gradient=gradient), case.network, case.x, case.y, direction
            )
            for gradient in ("unrolled", "implicit")
        )
        np.testing.assert_allclose(unrolled, implicit, rtol=1e-8, atol=1e-8)

    @given(cases(depth=(0, 0), classes=(2, 2)), st.integers(1, 3))
    def test_chord_equals_implicit_between_two_linear_classes(self, case: Case, steps: int) -> None:
        """With two linear classes, the first step ends on the boundary, so both are exact."""
        exact, fast = (
            make_defense(case, gradient=gradient, **changes)
            for gradient, changes in (("implicit", {}), ("chord", {"steps": steps}))
        )
        self.assume_smooth(case, exact)
        direction = case.draw_direction()
        examples = (case.network, case.x, case.y)
        values = [self.compute_penalties(defense, *examples) for defense in (fast, exact)]
        slopes = [
            self.find_penalty_slope(defense, *examples, direction) for defense in (fast, exact)
        ]
        np.testing.assert_allclose(values[0], values[1], rtol=1e-8)
        np.testing.assert_allclose(slopes[0], slopes[1], rtol=1e-8, atol=1e-8)


class EdgeTests(PenaltyHarness):
    """Tests of gradients at distance 0 from the boundary, and for a model with zero gradient."""

    @pytest.mark.parametrize("defense", EDGE_DEFENSES)
    def test_descent_pushes_an_example_off_the_boundary(self, defense: DeepDefense) -> None:
        network = make_linear_network([[1.0, 2.0], [3.0, -1.0]], [0.0, 0.0])
        x, y = np.array([[3.0, 2.0]]), np.array([0])
        *others, label_bias, other_bias = self.find_penalty_slopes(
            defense, network, x, y, np.eye(6)
        )
        # Gradient descent must raise the bias of the label's logit and lower the other bias. The
        # boundary then moves away from the example.
        assert label_bias < 0 < other_bias
        assert np.isfinite(others).all()

    @pytest.mark.parametrize("defense", EDGE_DEFENSES)
    def test_a_vanishing_gradient_gives_no_weight_gradient(self, defense: DeepDefense) -> None:
        flat = make_linear_network([[0.0, 0.0], [0.0, 0.0]], [1.0, 0.0])
        example = np.ones((1, 2)), np.array([0])
        result = self.find_penalty_slopes(defense, flat, *example, np.eye(6))
        np.testing.assert_array_equal(result, np.zeros(6))
