"""The penalty and its weight gradient: against the oracle, and the laws it must obey."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from einops import reduce
from hypothesis import assume
from hypothesis import strategies as st

from deepdefense.defenses.deep_defense import DeepDefense, Terms
from deepdefense.testing.deepfool import linear
from deepdefense.testing.harness import AUTODIFF, DIFFERENCE, NESTED, Harness, derivative
from deepdefense.testing.strategies import Case, cases, given
from deepdefense_numpy import oracle
from deepdefense_numpy.networks import TinyNetwork

__all__ = ["DEFENSE", "EdgeTests", "ImplicitLaws", "ImplicitTests", "PenaltyLaws", "PenaltyTests"]

SMOOTH = ("tanh", "softplus")
# Of moderate steepness, so that the tests see every branch at values of order 1.
DEFENSE = DeepDefense(lam=2.0, c=1.5, d=1.0, steps=3)
EDGES = [
    pytest.param(defense, id=f"{defense.gradient}-{defense.p:g}")
    for defense in (
        replace(DEFENSE, p=1.0),
        replace(DEFENSE, p=2.0),
        replace(DEFENSE, p=math.inf, gradient="implicit"),
        replace(DEFENSE, p=1.5, gradient="chord", steps=1),
        replace(DEFENSE, p=math.inf, gradient="chord"),
    )
]


def options(defense: DeepDefense) -> oracle.Options:
    """The settings as the oracle takes them."""
    return oracle.Options(
        lam=defense.lam,
        c=defense.c,
        d=defense.d,
        p=defense.p,
        steps=defense.steps,
        overshoot=defense.overshoot,
        candidates=defense.candidates,
    )


def fitted(case: Case, **changes: Any) -> DeepDefense:
    """A penalty with the case's settings."""
    return replace(DEFENSE, p=case.p, candidates=case.candidates, **changes)


def well_posed(case: Case, defense: DeepDefense) -> None:
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
            path, shift = _walked(case, defense, network, x, int(y))
            paths.add(path)
            assume(oracle.rho((1 + defense.overshoot) * shift, x, case.p) < 5)
        assume(len(paths) == 1)


def _walked(
    case: Case, defense: DeepDefense, network: TinyNetwork, x: np.ndarray, y: int
) -> tuple[Any, np.ndarray]:
    """What a small change must not change of the oracle's search, and where that leads."""
    keywords: Any = {"p": case.p, "steps": defense.steps}
    if defense.gradient == "chord":
        keywords["bounds"] = defense.bounds
        landing = oracle.approach(network, x, y, candidates=case.candidates, **keywords)
        return landing.path, landing.shift
    keywords["overshoot"] = defense.overshoot
    walk = (
        oracle.deepfool(network, x, y, candidates=case.candidates, **keywords)
        if int(network(x[None]).argmax()) == y
        else oracle.reach(network, x, y, **keywords)
    )
    return (walk.path, walk.success), walk.shift


class _Penalties(Harness):
    def judged(self, case: Case, defense: DeepDefense) -> None:
        self.accept(case)
        well_posed(case, defense)

    def penalties(
        self, defense: DeepDefense, network: TinyNetwork, x: np.ndarray, y: np.ndarray
    ) -> np.ndarray:
        """The penalty of every example."""
        model = self.model(network)
        found: np.ndarray = self.run(lambda x, y: defense(model, x, y), x, y)
        return found

    def terms(
        self, defense: DeepDefense, network: TinyNetwork, x: np.ndarray, y: np.ndarray
    ) -> Terms:
        """The penalty with all that it is made of."""
        model = self.model(network)
        found: Terms = self.run(lambda x, y: defense.terms(model, x, y), x, y)
        return found

    def penalty_slope(
        self,
        defense: DeepDefense,
        network: TinyNetwork,
        x: np.ndarray,
        y: np.ndarray,
        direction: np.ndarray,
    ) -> float:
        """The derivative of the summed penalty along a direction of weights."""
        return float(self.penalty_slopes(defense, network, x, y, direction[None])[0])

    def penalty_slopes(
        self,
        defense: DeepDefense,
        network: TinyNetwork,
        x: np.ndarray,
        y: np.ndarray,
        directions: np.ndarray,
    ) -> np.ndarray:
        """Those along several directions [n parameters]: [n]."""

        def total(model: Any) -> Any:
            return reduce(defense(model, self.array(x), self.array(y)), "b ->", "sum")

        return self.slopes(network, total, directions)


class PenaltyTests(_Penalties):
    """What the penalty must be."""

    @given(cases(), st.sampled_from(["unrolled", "implicit"]))
    def test_penalty_equals_the_oracle(self, case: Case, gradient: str) -> None:
        defense = fitted(case, gradient=gradient)
        self.judged(case, defense)
        found = self.penalties(defense, case.network, case.x, case.y)
        expected = [
            oracle.penalty(case.network, x, int(y), **options(defense))
            for x, y in zip(case.x, case.y, strict=True)
        ]
        np.testing.assert_allclose(found, expected, rtol=DIFFERENCE)

    @given(cases())
    def test_objective_equals_the_oracle(self, case: Case) -> None:
        defense = fitted(case)
        self.judged(case, defense)
        model = self.model(case.network)
        found = self.run(lambda x, y: defense.objective(model, x, y), case.x, case.y)
        expected = oracle.objective(case.network, case.x, case.y, **options(defense))
        np.testing.assert_allclose(found, expected, rtol=DIFFERENCE)

    @given(cases(activations=SMOOTH, depth=(1, 2)))
    def test_weight_gradient_equals_differences_of_the_oracle(self, case: Case) -> None:
        """The unrolled gradient, second derivatives and all, along a random direction."""
        defense = fitted(case)
        self.judged(case, defense)
        direction, start = case.direction(), case.network.parameters()

        def reference(t: float) -> float:
            network = case.network.with_parameters(start + t * direction)
            return oracle.objective(network, case.x, case.y, **options(defense))

        expected = derivative(reference)
        # Kinks that the path does not show (another coordinate for p = 1) show in another step.
        assume(np.isclose(expected, derivative(reference, 1e-5), rtol=1e-6, atol=1e-6))
        found = self.slope(
            case.network,
            lambda model: defense.objective(model, self.array(case.x), self.array(case.y)),
            direction,
        )
        np.testing.assert_allclose(found, expected, rtol=NESTED, atol=NESTED)

    @pytest.mark.parametrize("defense", EDGES)
    def test_example_without_rho_has_no_penalty_and_no_gradient(self, defense: DeepDefense) -> None:
        """One that is not finite, and one of zeros, beside an ordinary one."""
        network = TinyNetwork.draw(np.random.default_rng(0), [2, 4, 3], "tanh")
        x = np.array([[math.nan, 1.0], [0.0, 0.0], [0.5, -0.4]])
        y = network(np.nan_to_num(x)).argmax(1)
        direction = np.random.default_rng(1).normal(size=network.parameters().shape)
        with np.errstate(invalid="ignore"):
            terms = self.terms(defense, network, x, y)
            together, alone, zeros = (
                self.penalty_slope(defense, network, x[part], y[part], direction)
                for part in (slice(0, 3), slice(2, 3), slice(1, 2))
            )
        np.testing.assert_array_equal(terms.penalty[:2], 0)
        assert terms.penalty[2] > 0
        np.testing.assert_array_equal(terms.measured, [False, False, True])
        np.testing.assert_allclose(together, alone, rtol=NESTED, atol=NESTED)
        assert zeros == 0

    @pytest.mark.parametrize("defense", EDGES)
    def test_vanishing_gradient_gives_a_constant(self, defense: DeepDefense) -> None:
        flat = linear([[0.0, 0.0], [0.0, 0.0]], [1.0, 0.0])
        terms = self.terms(defense, flat, np.ones((1, 2)), np.array([0]))
        assert terms.penalty[0] == defense.lam
        assert not terms.success[0]
        assert not terms.measured[0]

    def test_wrong_branch_goes_on_along_its_tangent(self) -> None:
        """exp(d rho) for any d rho up to 10, and no overflow beyond."""
        network = linear([[1.0, 0.0], [0.0, 1.0]], [0.0, 0.0])
        x, y = np.array([[1.0, 0.0]]), np.array([1])  # wrong, at distance 1 / sqrt(2) from right
        rho = 1 / math.sqrt(2)
        for d, expected in (
            (2.0, math.exp(2 * rho)),
            (100.0, math.exp(10) * (1 + 100 * rho - 10)),
            (1e6, math.exp(10) * (1 + 1e6 * rho - 10)),
        ):
            found = self.penalties(DeepDefense(lam=1.0, d=d, overshoot=0.0), network, x, y)
            np.testing.assert_allclose(found, [expected], rtol=DIFFERENCE)


class ImplicitTests(_Penalties):
    """The gradients that finite differences of the penalty cannot see."""

    @given(cases(activations=SMOOTH, depth=(0, 2)))
    def test_implicit_gradient_equals_the_oracle(self, case: Case) -> None:
        defense = fitted(case, gradient="implicit")
        self.judged(case, defense)
        direction = case.direction()
        found = self.penalty_slope(defense, case.network, case.x, case.y, direction)
        expected = sum(
            oracle.implicit_weight_gradient(case.network, x, int(y), **options(defense)) @ direction
            for x, y in zip(case.x, case.y, strict=True)
        )
        np.testing.assert_allclose(found, expected, rtol=DIFFERENCE, atol=DIFFERENCE)

    @given(
        cases(activations=SMOOTH, depth=(0, 2)),
        st.integers(1, 3),
        st.sampled_from([None, (-1.0, 1.0)]),
    )
    def test_chord_equals_the_oracle(
        self, case: Case, steps: int, bounds: tuple[float, float] | None
    ) -> None:
        """Its value, and its gradient with the landing point and the slope held fixed."""
        if bounds is not None:
            assume(case.p > 1)
            case = case._replace(x=np.clip(case.x, *bounds))
        defense = fitted(case, gradient="chord", steps=steps, bounds=bounds)
        self.judged(case, defense)
        direction = case.direction()
        each = [
            oracle.chord_penalty(case.network, x, int(y), bounds=bounds, **options(defense))
            for x, y in zip(case.x, case.y, strict=True)
        ]
        found = self.penalties(defense, case.network, case.x, case.y)
        np.testing.assert_allclose(found, [value for value, _ in each], rtol=DIFFERENCE)
        slope = self.penalty_slope(defense, case.network, case.x, case.y, direction)
        expected = sum(gradient @ direction for _, gradient in each)
        np.testing.assert_allclose(slope, expected, rtol=DIFFERENCE, atol=DIFFERENCE)

    @pytest.mark.parametrize("p", [1.5, 2.0, 3.0, math.inf])
    def test_nearest_point_within_bounds(self, p: float) -> None:
        """Of a linear network: how far it is and how that grows, against a search by halving."""
        w, bias = np.array([8.0, -4.0, 2.0, 1.0]), -9.0
        way = np.sign(w) * np.abs(w) ** (1 / (p - 1) if p < math.inf else 0)
        # Up to three coordinates come to their bound; one is there.
        x = np.array([[0.7, 0.0, 0.9, 0.9], [0.9, 0.1, 0.5, 0.2], [0.2, 0.5, 0.5, 0.5], [0.5] * 4])

        def penalty(x: np.ndarray, bias: float) -> float:
            """Coordinates go along `way` until their bound, and the others on."""

            def step(t: float) -> Any:
                return np.clip(x + t * way, 0, 1) - x

            low, high = 0.0, 1e3
            for _ in range(100):
                t = (low + high) / 2
                low, high = (t, high) if w @ (x + step(t)) + bias < 0 else (low, t)
            return math.exp(-np.linalg.norm(step(low), p) / np.linalg.norm(x, p))

        defense = DeepDefense.fast(lam=1.0, c=1.0, p=p, overshoot=0.0, bounds=(0.0, 1.0))
        network, y = linear([[0.0] * 4, w.tolist()], [0.0, bias]), np.zeros(4, int)
        found = self.penalties(defense, network, x, y)
        np.testing.assert_allclose(found, [penalty(one, bias) for one in x])
        [slope] = self.penalty_slopes(defense, network, x, y, np.eye(10)[-1:])
        around = (sum(penalty(one, bias + h) for one in x) for h in (1e-6, -1e-6))
        expected = (next(around) - next(around)) / 2e-6
        np.testing.assert_allclose(slope, expected, rtol=1e-4)


class EdgeTests(_Penalties):
    """Gradients where there is hardly one to speak of."""

    @pytest.mark.parametrize("defense", EDGES)
    def test_example_on_the_boundary_is_pushed_off_it(self, defense: DeepDefense) -> None:
        network = linear([[1.0, 2.0], [3.0, -1.0]], [0.0, 0.0])
        x, y = np.array([[3.0, 2.0]]), np.array([0])
        *others, own, other = self.penalty_slopes(defense, network, x, y, np.eye(6))
        assert own < 0 < other  # descent raises the label's bias, lowers the other's
        assert np.isfinite(others).all()

    @pytest.mark.parametrize("defense", EDGES)
    def test_vanishing_gradient_has_no_gradient(self, defense: DeepDefense) -> None:
        flat = linear([[0.0, 0.0], [0.0, 0.0]], [1.0, 0.0])
        given = np.ones((1, 2)), np.array([0])
        found = self.penalty_slopes(defense, flat, *given, np.eye(6))
        np.testing.assert_array_equal(found, np.zeros(6))


class PenaltyLaws(_Penalties):
    """What must hold whatever the penalty is: these are of the algorithm, not of its gradients."""

    @given(cases())
    def test_penalty_is_independent_of_batch_composition(self, case: Case) -> None:
        defense = fitted(case)
        self.judged(case, defense)
        together = self.penalties(defense, case.network, case.x, case.y)
        for i in range(len(case.x)):
            alone = self.penalties(defense, case.network, case.x[i : i + 1], case.y[i : i + 1])
            np.testing.assert_allclose(alone[0], together[i], rtol=AUTODIFF)

    @given(cases(), st.sampled_from([1e-2, 1e2]), st.floats(-10, 10))
    def test_shift_and_scale_of_logits_change_no_penalty(
        self, case: Case, scale: float, shift: float
    ) -> None:
        defense = fitted(case)
        self.judged(case, defense)
        found, same = (
            self.penalties(defense, network, case.x, case.y)
            for network in (case.network, case.network.with_logits(scale, shift))
        )
        np.testing.assert_allclose(found, same, rtol=DIFFERENCE)

    def test_unfinished_examples_can_be_dropped(self) -> None:
        network = TinyNetwork.draw(np.random.default_rng(3), [2, 6, 3], "tanh")
        x = np.random.default_rng(4).normal(size=(40, 2))
        y = network(x).argmax(1)
        kept, dropped = (
            self.terms(replace(DEFENSE, steps=1, overshoot=0.0, unfinished=way), network, x, y)
            for way in ("keep", "drop")
        )
        assert 0 < kept.success.sum() < len(x)
        assert (kept.penalty > 0).all()
        np.testing.assert_array_equal(dropped.penalty, np.where(kept.success, kept.penalty, 0))


class ImplicitLaws(_Penalties):
    """Where one step is exact, the implicit gradient and its approximation are."""

    @given(cases(depth=(0, 0)))
    def test_implicit_equals_unrolled_on_linear_models(self, case: Case) -> None:
        self.judged(case, fitted(case))
        # A wrong example may have to overtake one class after the other. Its several steps are then
        # not the distance to any one boundary, of which the implicit gradient is the derivative.
        assume(self.terms(fitted(case), case.network, case.x, case.y).steps.max() == 1)
        direction = case.direction()
        unrolled, implicit = (
            self.penalty_slope(fitted(case, gradient=way), case.network, case.x, case.y, direction)
            for way in ("unrolled", "implicit")
        )
        np.testing.assert_allclose(unrolled, implicit, rtol=1e-8, atol=1e-8)

    @given(cases(depth=(0, 0), classes=(2, 2)), st.integers(1, 3))
    def test_chord_equals_implicit_between_two_linear_classes(self, case: Case, steps: int) -> None:
        """Where one step is exact, the approximation is too: its value and its gradient."""
        exact, fast = (
            fitted(case, gradient=gradient, **changes)
            for gradient, changes in (("implicit", {}), ("chord", {"steps": steps}))
        )
        self.judged(case, exact)
        direction = case.direction()
        given = (case.network, case.x, case.y)
        values = [self.penalties(defense, *given) for defense in (fast, exact)]
        slopes = [self.penalty_slope(defense, *given, direction) for defense in (fast, exact)]
        np.testing.assert_allclose(values[0], values[1], rtol=1e-8)
        np.testing.assert_allclose(slopes[0], slopes[1], rtol=1e-8, atol=1e-8)
