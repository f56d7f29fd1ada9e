"""Tests of each operation of a backend against a NumPy network with analytic gradients."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from einops import reduce

from deepdefense.seam.choosing import backend_of, get_backend
from deepdefense.testing.harness import AUTODIFF, NESTED, Harness, differentiate_numerically
from deepdefense.testing.strategies import Case, cases, given
from deepdefense_numpy.networks import TinyNetwork

__all__ = ["ConstantTests", "PrimitiveTests"]


class _Counter(NamedTuple):
    """The state of a loop: a count [b], which each step increases by 1."""

    value: Any


class _CounterLimit(NamedTuple):
    """For each example, the count [b] at which its loop stops."""

    limit: Any


class _WeightedSums(NamedTuple):
    """Weighted sums of gradients and contrasts, which a fold accumulates.

    The gradient of a contrast [k] is the input gradient of <contrast, logits>. The last term has
    weight 1, and each other term has half the weight of the term after it.
    """

    gradient: Any
    contrast: Any

    def add(self, contrasts: Any, gradients: Any) -> _WeightedSums:
        total = self
        for j in range(contrasts.shape[1]):
            total = _WeightedSums(
                0.5 * total.gradient + gradients[:, j], 0.5 * total.contrast + contrasts[:, j]
            )
        return total


def _sum_entries(values: Any) -> Any:
    """Return the sum of all entries, a scalar."""
    return reduce(values, "b d ->", "sum")


def _pull_back(network: TinyNetwork, x: np.ndarray, cotangent: np.ndarray) -> np.ndarray:
    """Return the gradient of <cotangent, logits> with respect to each row of x, analytically."""
    slopes = np.stack([network.class_gradients(row) for row in x])
    gradients: np.ndarray = np.einsum("bk,bkd->bd", cotangent, slopes)
    return gradients


class PrimitiveTests(Harness):
    """Tests of every operation of `deepdefense.Backend`."""

    @given(cases())
    def test_logits_and_class_gradients_equal_the_reference(self, case: Case) -> None:
        self.assume_testable(case)
        x = case.x.reshape(len(case.x), -1)
        contrasts = case.rng.normal(size=(len(x), 3, len(case.network.biases[-1])))
        expected = np.stack([case.network.class_gradients(row) for row in x])
        model = self.build_model(case.network)

        def gradients(x: Any, contrasts: Any) -> Any:
            with self.seam.inference(model) as f:
                logits, fold = self.seam.class_gradients(f, x)
                start = _WeightedSums(self.seam.xp.zeros_like(x), self.seam.xp.zeros_like(logits))
                pulled = fold(_WeightedSums.add, start, contrasts)
                return logits, *pulled, self.seam.forward(f, x)

        logits, result, contrast_sum, forward = self.run(gradients, x, contrasts)
        np.testing.assert_allclose(forward, logits, rtol=1e-12, atol=1e-12)
        np.testing.assert_allclose(logits, case.network(x), rtol=1e-12, atol=1e-12)
        # The terms of `_WeightedSums` have unequal weights, so that the test detects a wrong order.
        weights = np.array([0.25, 0.5, 1.0])
        np.testing.assert_allclose(contrast_sum, weights @ contrasts, rtol=1e-12, atol=1e-12)
        expected = weights @ (contrasts @ expected)
        np.testing.assert_allclose(result, expected, rtol=self.exactness, atol=self.exactness)

    @given(cases())
    def test_vjp_equals_the_reference(self, case: Case) -> None:
        self.assume_testable(case)
        x = case.x.reshape(len(case.x), -1)
        cotangent = case.rng.normal(size=(len(x), len(case.network.biases[-1])))
        model = self.build_model(case.network)

        def pull_twice(x: Any, cotangent: Any) -> Any:
            with self.seam.inference(model) as f:
                twice, pull = self.seam.vjp(f, x)
                once, pull_once = self.seam.vjp(f, x, twice=False)
            return twice, pull(cotangent), once, pull_once(cotangent)

        twice, gradient, once, gradient_once = self.run(pull_twice, x, cotangent)
        for logits in (twice, once):
            np.testing.assert_allclose(logits, case.network(x), rtol=1e-12, atol=1e-12)
        for result in (gradient, gradient_once):
            expected = _pull_back(case.network, x, cotangent)
            np.testing.assert_allclose(result, expected, rtol=self.exactness, atol=self.exactness)

    @given(cases(activations=("tanh", "softplus"), depth=(1, 2)))
    def test_pull_is_differentiable_in_the_weights(self, case: Case) -> None:
        """Test second derivatives: d/dW of a function of the input gradient."""
        x = case.x.reshape(len(case.x), -1)
        cotangent = case.rng.normal(size=(len(x), len(case.network.biases[-1])))
        towards = case.rng.normal(size=x.shape)
        direction, start = case.draw_direction(), case.network.parameters()

        def value(model: Any) -> Any:
            with self.seam.inference(model) as f:
                _, pull = self.seam.vjp(f, self.to_array(x))
                return _sum_entries(pull(self.to_array(cotangent)) * self.to_array(towards))

        def reference(t: float) -> float:
            network = case.network.with_parameters(start + t * direction)
            return float((_pull_back(network, x, cotangent) * towards).sum())

        result = self.find_slope(case.network, value, direction)
        np.testing.assert_allclose(
            result, differentiate_numerically(reference), rtol=NESTED, atol=NESTED
        )

    def test_rank_breaks_ties_by_the_lower_index(self) -> None:
        scores = np.array([[1.0, 3.0, 3.0, 0.0], [2.0, 2.0, 2.0, 2.0]])
        result, first = self.run(
            lambda s: (self.seam.rank(s, 3), self.seam.xp.argmax(s, 1)), scores
        )
        np.testing.assert_array_equal(result, [[1, 2, 0], [0, 1, 2]])
        np.testing.assert_array_equal(first, [1, 0])

    def test_take_picks_one_entry_of_each_row(self) -> None:
        values, index = np.arange(12.0).reshape(2, 3, 2), np.array([2, 0])

        def take_both(values: Any, index: Any) -> Any:
            index = self.seam.index(index, 3, values)
            return self.seam.take(values, index), self.seam.take(values[:, :, 0], index)

        rows, numbers = self.run(take_both, values, index)
        np.testing.assert_array_equal(rows, [[4, 5], [6, 7]])
        np.testing.assert_array_equal(numbers, [4, 6])

    def test_iterate_freezes_each_example_when_it_is_done(self) -> None:
        def body(state: _Counter, fixed: _CounterLimit) -> tuple[_Counter, Any]:
            value = state.value + 1
            return _Counter(value), value < fixed.limit

        def count(start: Any, limits: Any) -> Any:
            return self.seam.iterate(
                body, _Counter(start), _CounterLimit(limits), limits > 0, steps=5
            )

        # The first example is inactive from the start, so the loop must not change its state.
        start, limits = np.array([-5.0, 0.0, 0.0, 0.0]), np.array([0.0, 3.0, 1.0, 9.0])
        result = self.run(count, start, limits)
        np.testing.assert_array_equal(result.value, [-5, 3, 1, 5])

    def test_cross_entropy_is_stable(self) -> None:
        logits = np.array([[1000.0, 0.0, -1000.0], [0.0, np.log(3.0), 0.0]])
        result = self.run(
            lambda z, y: self.seam.softmax_cross_entropy(z, self.seam.index(y, 3, z)),
            logits,
            np.array([1, 1]),
        )
        np.testing.assert_allclose(result, [1000, np.log(5 / 3)], rtol=1e-12)

    def test_arrays_keep_their_type(self) -> None:
        for dtype in (np.float32, np.float64):
            result = self.to_array(np.ones((2, 3), dtype))
            assert self.seam.to_numpy(result).dtype == dtype
            assert self.seam.epsilon(result) == np.finfo(dtype).eps
            hot = self.seam.one_hot(self.seam.index([0, 2], 3, result), 3, result)
            assert self.seam.to_numpy(hot).dtype == dtype
            np.testing.assert_array_equal(self.seam.to_numpy(hot), [[1, 0, 0], [0, 0, 1]])

    def test_host_arrays_are_copies(self) -> None:
        x = self.to_array(np.ones((2, 3)))
        self.seam.to_numpy(x)[:] = 0
        np.testing.assert_array_equal(self.seam.to_numpy(x), 1)

    def test_backend_is_found_by_its_name_and_its_arrays(self) -> None:
        assert get_backend(self.backend).name == self.backend
        assert backend_of(self.to_array(np.ones(2))) is self.seam


class ConstantTests(Harness):
    """Tests of values through which no gradient may flow.

    A backend of finite differences cannot pass them, because it differentiates through every value.
    """

    @given(cases(activations=("tanh", "softplus")))
    def test_forward_and_class_gradients_are_constant(self, case: Case) -> None:
        """Check that no gradient flows from `forward` and `class_gradients` to the weights.

        Adding their results to a sum of logits must not change the sum's gradient.
        """
        x = case.x.reshape(len(case.x), -1)
        contrasts = case.rng.normal(size=(len(x), 3, len(case.network.biases[-1])))
        direction = case.draw_direction()

        def value(model: Any, constants: bool) -> Any:
            rows = self.to_array(x)
            with self.seam.inference(model) as f:
                total = _sum_entries(f(rows))
                if constants:
                    logits, fold = self.seam.class_gradients(f, rows)
                    start = _WeightedSums(self.seam.xp.zeros_like(rows), logits)
                    pulled = fold(_WeightedSums.add, start, self.to_array(contrasts))
                    parts = (logits, pulled.gradient, self.seam.forward(f, rows))
                    total = total + sum(map(_sum_entries, parts))
            return total

        plain = self.find_slope(case.network, lambda model: value(model, False), direction)
        result = self.find_slope(case.network, lambda model: value(model, True), direction)
        np.testing.assert_allclose(result, plain, rtol=AUTODIFF, atol=AUTODIFF)
