"""Tests of norms, dual norms, steepest directions and rho."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import strategies as st

from deepdefense.geometry.norms import constant_norm, dual, norm, steepest_direction
from deepdefense.geometry.rho import rho
from deepdefense.testing.harness import Harness
from deepdefense.testing.strategies import ORDERS, Case, cases, given
from deepdefense_numpy import oracle

__all__ = ["NormGradientTests", "NormTests"]

orders = st.sampled_from([*ORDERS, 1.01, 7.0, 100.0])
vectors = st.integers(0, 2**32 - 1).map(lambda s: np.random.default_rng(s).normal(size=(3, 5)))
scales = st.sampled_from([1e-200, 1e-20, 1.0, 1e20, 1e200])


class NormTests(Harness):
    """Tests of norms and steepest directions for several orders p, and of rho."""

    @given(vectors, orders, scales)
    def test_norm_equals_numpy_at_any_scale(self, v: np.ndarray, p: float, scale: float) -> None:
        def compute_both(v: Any) -> Any:
            return norm(self.seam, v, p), constant_norm(self.seam, v, p)

        for result in self.run(compute_both, scale * v):
            np.testing.assert_allclose(result / scale, np.linalg.norm(v, p, axis=1), rtol=1e-12)

    @pytest.mark.parametrize(
        "scales", [(1.0, 1e15), (1.0, 1e30), (1e-30, 1e30), (1e-23, 1e-22), (1.0, 0.0)]
    )
    def test_norm_is_exact_at_any_scale_in_single_precision(
        self, scales: tuple[float, float]
    ) -> None:
        """It is exact whether the squares of a row overflow, underflow or fit float32."""
        sizes = np.array(scales, np.float32)
        rows = np.outer(sizes, [3, 4, 0]).astype(np.float32)
        result = self.run(lambda v: constant_norm(self.seam, v, 2), rows)
        assert result.dtype == np.float32
        np.testing.assert_allclose(result, 5 * sizes, rtol=1e-6)

    @given(vectors, orders)
    def test_steepest_attains_the_dual_norm_with_unit_length(self, w: np.ndarray, p: float) -> None:
        """Check that the steepest direction u of w has ||u||_p = 1 and <w, u> = ||w||_q.

        Here q is the order of the dual norm, so no vector of unit length has a larger <w, u>.
        """
        slope, direction = self.run(lambda w: steepest_direction(self.seam, w, p), w)
        np.testing.assert_allclose(np.linalg.norm(direction, p, axis=1), 1, rtol=1e-9)
        np.testing.assert_allclose((w * direction).sum(1), slope, rtol=1e-9)
        np.testing.assert_allclose(slope, np.linalg.norm(w, dual(p), axis=1), rtol=1e-12)

    @pytest.mark.parametrize("p", [*ORDERS, 1.01, 100.0])
    def test_rows_of_zeros_have_norm_and_direction_zero(self, p: float) -> None:
        def compute_both(v: Any) -> Any:
            return norm(self.seam, v, p), *steepest_direction(self.seam, v, p)

        for part in self.run(compute_both, np.zeros((2, 3))):
            np.testing.assert_array_equal(part, 0)

    @given(cases())
    def test_rho_equals_the_oracle(self, case: Case) -> None:
        delta = case.rng.normal(size=case.x.shape)
        result = self.run(lambda d, x: rho(d, x, case.p), delta, case.x)
        expected = [oracle.rho(d, x, case.p) for d, x in zip(delta, case.x, strict=True)]
        np.testing.assert_allclose(result, expected, rtol=1e-12)

    def test_rho_of_a_zero_example_is_zero(self) -> None:
        x = np.array([[0.0, 0.0], [3.0, 4.0]])
        np.testing.assert_allclose(self.run(rho, np.ones((2, 2)), x), [0, math.sqrt(2) / 5])

    def test_rho_of_an_empty_batch_is_empty(self) -> None:
        assert self.run(rho, np.zeros((0, 3)), np.zeros((0, 3))).shape == (0,)


class NormGradientTests(Harness):
    """Tests of the derivatives of norms and steepest directions, at a zero vector and elsewhere."""

    @pytest.mark.parametrize("p", [*ORDERS, 1.01, 100.0])
    def test_gradient_is_finite_at_zeros_and_analytic_elsewhere(self, p: float) -> None:
        def differentiate(v: Any) -> Any:
            def f(v: Any) -> Any:
                xp = self.seam.xp
                slope, direction = steepest_direction(self.seam, v, p)
                parts = [norm(self.seam, v, p), slope, norm(self.seam, direction, 2)]
                return xp.reshape(sum(parts), (-1, 1)), xp.reshape(parts[0], (-1, 1))

            both = (self.seam.vjp(lambda v: f(v)[0], v), self.seam.vjp(lambda v: f(v)[1], v))
            return tuple(pull(self.seam.xp.ones_like(value)) for value, pull in both)

        v = np.array([[0.0, 0.0, 0.0], [0.0, -2.0, 1.0], [0.5, 0.3, -4.0]])
        whole, result = self.run(differentiate, v)
        assert np.isfinite(whole).all()
        np.testing.assert_array_equal(whole[0], 0)
        rows = v[1:]
        if p == math.inf:
            expected = np.sign(rows) * (np.abs(rows) == np.abs(rows).max(1, keepdims=True))
        else:
            size = np.linalg.norm(rows, p, axis=1, keepdims=True)
            expected = np.sign(rows) * (np.abs(rows) / size) ** (p - 1)
        np.testing.assert_allclose(result[1:], expected, rtol=1e-7, atol=1e-12)
