"""Norms, duals and steepest directions."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import deepdefense as dd
from deepdefense.norms import dual, norm, steepest
from strategies import ORDERS
from subjects import Subject

orders = st.sampled_from([*ORDERS, 1.01, 7.0, 100.0])
vectors = st.integers(0, 2**32 - 1).map(lambda s: np.random.default_rng(s).normal(size=(3, 5)))


@given(vectors, orders, st.sampled_from([1e-200, 1e-20, 1.0, 1e20, 1e200]))
def test_norm_equals_numpy_at_any_scale(
    subject: Subject, v: np.ndarray, p: float, scale: float
) -> None:
    backend = subject.backend
    found = backend.to_numpy(norm(backend, subject.array(scale * v), p))
    np.testing.assert_allclose(found / scale, np.linalg.norm(v, p, axis=1), rtol=1e-12)


@given(vectors, orders)
def test_steepest_attains_the_dual_norm_with_unit_length(
    subject: Subject, w: np.ndarray, p: float
) -> None:
    """<w, u> = ||w||_q with ||u||_p = 1: Hoelder's inequality, met with equality."""
    backend = subject.backend
    slope, direction = map(backend.to_numpy, steepest(backend, subject.array(w), p))
    np.testing.assert_allclose(np.linalg.norm(direction, p, axis=1), 1, rtol=1e-9)
    np.testing.assert_allclose((w * direction).sum(1), slope, rtol=1e-9)
    np.testing.assert_allclose(slope, np.linalg.norm(w, dual(p), axis=1), rtol=1e-12)


@pytest.mark.parametrize("p", [*ORDERS, 1.01, 100.0])
def test_zero_rows(subject: Subject, p: float) -> None:
    backend, zero = subject.backend, subject.array(np.zeros((2, 3)))
    np.testing.assert_array_equal(backend.to_numpy(norm(backend, zero, p)), 0)
    for part in steepest(backend, zero, p):
        np.testing.assert_array_equal(backend.to_numpy(part), 0)


@pytest.mark.only("torch")
@pytest.mark.parametrize("p", [*ORDERS, 1.01, 100.0])
def test_gradients_are_finite_at_zeros_and_equal_autograd_elsewhere(p: float) -> None:
    import torch

    backend = dd.get_backend("torch")
    rows = torch.tensor([[0.0, 0.0, 0.0], [0.0, -2.0, 1.0], [0.5, 0.3, -4.0]], dtype=torch.float64)
    v = rows.clone().requires_grad_()
    slope, direction = steepest(backend, v, p)
    (norm(backend, v, p).sum() + slope.sum() + (direction * direction).sum()).backward()
    assert v.grad is not None
    assert torch.isfinite(v.grad).all()
    assert (v.grad[0] == 0).all()

    v.grad = None
    norm(backend, v, p).sum().backward()
    other = rows[1:].clone().requires_grad_()
    torch.linalg.vector_norm(other, p, dim=1).sum().backward()
    torch.testing.assert_close(v.grad[1:], other.grad)


def test_dual() -> None:
    for p in (1.0, 1.25, 2.0, 5.0, math.inf):
        assert dual(dual(p)) == pytest.approx(p)
