"""Tests of the penalty and its unrolled gradient against the oracle, and for invariances."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume
from hypothesis import strategies as st

from deepdefense.defenses.deep_defense import DeepDefense
from deepdefense.testing.harness import AUTODIFF, DIFFERENCE, NESTED, differentiate_numerically
from deepdefense.testing.linear import make_linear_network
from deepdefense.testing.penalty_harness import (
    EDGE_DEFENSES,
    SMOOTH_ACTIVATIONS,
    TESTED_DEFENSE,
    PenaltyHarness,
    make_defense,
    make_oracle_options,
)
from deepdefense.testing.strategies import Case, cases, given
from deepdefense_numpy import oracle
from deepdefense_numpy.networks import TinyNetwork

__all__ = ["PenaltyLaws", "PenaltyTests"]


class PenaltyTests(PenaltyHarness):
    """Tests of the penalty against the oracle, and in edge cases."""

    @given(cases(), st.sampled_from(["unrolled", "implicit"]))
    def test_penalty_equals_the_oracle(self, case: Case, gradient: str) -> None:
        defense = make_defense(case, gradient=gradient)
        self.assume_smooth(case, defense)
        result = self.compute_penalties(defense, case.network, case.x, case.y)
        expected = [
            oracle.penalty(case.network, x, int(y), **make_oracle_options(defense))
            for x, y in zip(case.x, case.y, strict=True)
        ]
        np.testing.assert_allclose(result, expected, rtol=DIFFERENCE)

    @given(cases())
    def test_objective_equals_the_oracle(self, case: Case) -> None:
        defense = make_defense(case)
        self.assume_smooth(case, defense)
        model = self.build_model(case.network)
        result = self.run(lambda x, y: defense.objective(model, x, y), case.x, case.y)
        expected = oracle.objective(case.network, case.x, case.y, **make_oracle_options(defense))
        np.testing.assert_allclose(result, expected, rtol=DIFFERENCE)

    @given(cases(activations=SMOOTH_ACTIVATIONS, depth=(1, 2)))
    def test_weight_gradient_equals_differences_of_the_oracle(self, case: Case) -> None:
        """Compare the unrolled gradient with finite differences along a random direction."""
        defense = make_defense(case)
        self.assume_smooth(case, defense)
        direction, start = case.draw_direction(), case.network.parameters()

        def reference(t: float) -> float:
            network = case.network.with_parameters(start + t * direction)
            return oracle.objective(network, case.x, case.y, **make_oracle_options(defense))

        expected = differentiate_numerically(reference)
        # Discard cases with a kink nearby, where finite differences of two step sizes disagree.
        # `assume_smooth` does not find all kinks. For p = 1, for example, the steepest coordinate
        # may change although the classes and the number of steps stay the same.
        assume(
            np.isclose(expected, differentiate_numerically(reference, 1e-5), rtol=1e-6, atol=1e-6)
        )
        result = self.find_slope(
            case.network,
            lambda model: defense.objective(model, self.to_array(case.x), self.to_array(case.y)),
            direction,
        )
        np.testing.assert_allclose(result, expected, rtol=NESTED, atol=NESTED)

    @pytest.mark.parametrize("defense", EDGE_DEFENSES)
    def test_an_example_without_rho_has_no_penalty_and_no_gradient(
        self, defense: DeepDefense
    ) -> None:
        """The batch has an example with NaN, an example of zeros, and an ordinary example."""
        network = TinyNetwork.draw(np.random.default_rng(0), [2, 4, 3], "tanh")
        x = np.array([[math.nan, 1.0], [0.0, 0.0], [0.5, -0.4]])
        y = network(np.nan_to_num(x)).argmax(1)
        direction = np.random.default_rng(1).normal(size=network.parameters().shape)
        with np.errstate(invalid="ignore"):
            terms = self.compute_terms(defense, network, x, y)
            together, alone, zeros = (
                self.find_penalty_slope(defense, network, x[part], y[part], direction)
                for part in (slice(0, 3), slice(2, 3), slice(1, 2))
            )
        np.testing.assert_array_equal(terms.penalty[:2], 0)
        assert terms.penalty[2] > 0
        np.testing.assert_array_equal(terms.measured, [False, False, True])
        np.testing.assert_allclose(together, alone, rtol=NESTED, atol=NESTED)
        assert zeros == 0

    @pytest.mark.parametrize("defense", EDGE_DEFENSES)
    def test_a_vanishing_gradient_gives_a_constant_penalty(self, defense: DeepDefense) -> None:
        flat = make_linear_network([[0.0, 0.0], [0.0, 0.0]], [1.0, 0.0])
        terms = self.compute_terms(defense, flat, np.ones((1, 2)), np.array([0]))
        assert terms.penalty[0] == defense.lam
        assert not terms.success[0]
        assert not terms.measured[0]

    def test_misclassified_penalty_continues_linearly_beyond_exp_10(self) -> None:
        """If d * rho > 10, the tangent of exp at 10 replaces exp in the penalty exp(d * rho).

        The penalty of a misclassified example then stays finite.
        """
        network = make_linear_network([[1.0, 0.0], [0.0, 1.0]], [0.0, 0.0])
        x, y = np.array([[1.0, 0.0]]), np.array([1])  # misclassified, at distance 1 / sqrt(2)
        rho = 1 / math.sqrt(2)
        for d, expected in (
            (2.0, math.exp(2 * rho)),
            (100.0, math.exp(10) * (1 + 100 * rho - 10)),
            (1e6, math.exp(10) * (1 + 1e6 * rho - 10)),
        ):
            result = self.compute_penalties(DeepDefense(lam=1.0, d=d, overshoot=0.0), network, x, y)
            np.testing.assert_allclose(result, [expected], rtol=DIFFERENCE)


class PenaltyLaws(PenaltyHarness):
    """Tests of invariances of the penalty that hold for every backend."""

    @given(cases())
    def test_penalty_is_independent_of_batch_composition(self, case: Case) -> None:
        defense = make_defense(case)
        self.assume_smooth(case, defense)
        together = self.compute_penalties(defense, case.network, case.x, case.y)
        for i in range(len(case.x)):
            alone = self.compute_penalties(
                defense, case.network, case.x[i : i + 1], case.y[i : i + 1]
            )
            np.testing.assert_allclose(alone[0], together[i], rtol=AUTODIFF)

    @given(cases(), st.sampled_from([1e-2, 1e2]), st.floats(-10, 10))
    def test_shift_and_scale_of_logits_change_no_penalty(
        self, case: Case, scale: float, shift: float
    ) -> None:
        defense = make_defense(case)
        self.assume_smooth(case, defense)
        result, same = (
            self.compute_penalties(defense, network, case.x, case.y)
            for network in (case.network, case.network.with_logits(scale, shift))
        )
        np.testing.assert_allclose(result, same, rtol=DIFFERENCE)

    def test_unfinished_examples_can_be_dropped(self) -> None:
        network = TinyNetwork.draw(np.random.default_rng(3), [2, 6, 3], "tanh")
        x = np.random.default_rng(4).normal(size=(40, 2))
        y = network(x).argmax(1)
        kept, dropped = (
            self.compute_terms(
                replace(TESTED_DEFENSE, steps=1, overshoot=0.0, unfinished=choice), network, x, y
            )
            for choice in ("keep", "drop")
        )
        assert 0 < kept.success.sum() < len(x)
        assert (kept.penalty > 0).all()
        np.testing.assert_array_equal(dropped.penalty, np.where(kept.success, kept.penalty, 0))
