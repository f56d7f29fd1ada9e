"""The seam: each primitive against the reference, and the choice of a backend."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import EntryPoint
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import assume, given

import deepdefense as dd
from deepdefense import backend as seam
from strategies import Case, cases
from subjects import NESTED, SUBJECTS, Subject


@given(cases())
def test_logits_and_class_gradients_equal_the_reference(subject: Subject, case: Case) -> None:
    assume(case.network.activation in subject.activations)
    backend, x = subject.backend, case.x.reshape(len(case.x), -1)
    contrasts = case.rng.normal(size=(len(x), 3, len(case.network.biases[-1])))
    expected = np.stack([case.network.class_gradients(row) for row in x])
    with backend.inference(subject.model(case.network)) as f:
        logits, gradients = backend.class_gradients(f, subject.array(x))
        found = gradients(subject.array(contrasts))
        np.testing.assert_array_equal(
            backend.to_numpy(backend.forward(f, subject.array(x))), backend.to_numpy(logits)
        )
    np.testing.assert_allclose(backend.to_numpy(logits), case.network(x), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(
        backend.to_numpy(found), contrasts @ expected, atol=subject.exactness
    )


@given(cases())
def test_vjp_equals_the_reference(subject: Subject, case: Case) -> None:
    assume(case.network.activation in subject.activations)
    backend, x = subject.backend, case.x.reshape(len(case.x), -1)
    cotangent = case.rng.normal(size=(len(x), len(case.network.biases[-1])))
    expected = np.stack([case.network.class_gradients(row) for row in x])
    for twice in (True, False):
        with backend.inference(subject.model(case.network)) as f:
            logits, pull = backend.vjp(f, subject.array(x), twice=twice)
            found = backend.to_numpy(pull(subject.array(cotangent)))
        np.testing.assert_allclose(
            backend.to_numpy(logits), case.network(x), rtol=1e-12, atol=1e-12
        )
        np.testing.assert_allclose(
            found, np.einsum("bk,bkd->bd", cotangent, expected), atol=subject.exactness
        )


@given(cases(activations=("tanh", "softplus"), depth=(1, 2)))
def test_pull_is_differentiable_in_the_weights(subject: Subject, case: Case) -> None:
    """d/dW of a function of the input gradient: the second order that training needs."""
    backend, x = subject.backend, case.x.reshape(len(case.x), -1)
    cotangent = case.rng.normal(size=(len(x), len(case.network.biases[-1])))
    towards = case.rng.normal(size=x.shape)

    def value(model: object) -> object:
        with backend.inference(model) as f:
            _, pull = backend.vjp(f, subject.array(x))
            return (pull(subject.array(cotangent)) * subject.array(towards)).sum()

    direction = case.direction()
    expected = SUBJECTS["numpy"].slope(
        case.network,
        lambda f: np.sum(_reference_pull(case, f, x, cotangent) * towards),
        direction,
    )
    found = subject.slope(case.network, value, direction)
    np.testing.assert_allclose(found, expected, rtol=NESTED, atol=NESTED)


def _reference_pull(case: Case, f: object, x: np.ndarray, cotangent: np.ndarray) -> np.ndarray:
    _, pull = SUBJECTS["numpy"].backend.vjp(f, x)  # type: ignore[arg-type]
    return pull(cotangent)


def test_rank_breaks_ties_by_the_lower_index(subject: Subject) -> None:
    scores = subject.array(np.array([[1.0, 3.0, 3.0, 0.0], [2.0, 2.0, 2.0, 2.0]]))
    found = subject.backend.to_numpy(subject.backend.rank(scores, 3))
    np.testing.assert_array_equal(found, [[1, 2, 0], [0, 1, 2]])
    first = subject.backend.to_numpy(subject.backend.xp.argmax(scores, 1))
    np.testing.assert_array_equal(first, [1, 0])


class Count(NamedTuple):
    value: object


class Limit(NamedTuple):
    limit: object


def test_iterate_freezes_each_example_when_it_is_done(subject: Subject) -> None:
    backend = subject.backend
    limits = subject.array(np.array([0, 3, 1, 9]))

    def body(state: Count, fixed: Limit) -> tuple[Count, object]:
        value = state.value + 1
        return Count(value), value < fixed.limit

    start = Count(subject.array(np.zeros(4, np.int64)))
    found = backend.iterate(body, start, Limit(limits), limits > 0, steps=5)
    np.testing.assert_array_equal(backend.to_numpy(found.value), [0, 3, 1, 5])


def test_available_backends_imports_nothing() -> None:
    assert dd.available_backends()["numpy"] is True
    code = (
        "import sys, deepdefense as dd; dd.available_backends(); "
        "print(sorted({'torch', 'jax', 'tensorflow', 'keras', 'deepdefense_torch', 'matplotlib', "
        "'jinja2', 'datasets', 'sklearn'} & set(sys.modules)))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[]"


def test_use_backend_is_a_function_and_a_context_manager(subject: Subject) -> None:
    assert dd.current_backend() is None
    with dd.use_backend(subject.name) as backend:
        assert backend is dd.get_backend(subject.name)
        with dd.use_backend("numpy"):
            assert dd.current_backend() is dd.get_backend("numpy")
        assert dd.current_backend() is backend
    assert dd.current_backend() is None
    chosen = dd.use_backend(subject.name)
    assert dd.current_backend() is dd.get_backend(subject.name)
    chosen.__exit__()
    assert dd.current_backend() is None


def test_unknown_backend_is_told() -> None:
    with pytest.raises(dd.InputError, match="no backend is called 'caffe'; known: numpy, torch"):
        dd.use_backend("caffe")
    assert dd.current_backend() is None


def test_missing_framework_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = EntryPoint("nosuchframework", "nosuchframework.backend:BACKEND", seam.GROUP)
    monkeypatch.setattr(seam, "_entries", lambda: {"nosuchframework": entry})
    with pytest.raises(ImportError, match=r'pip install "deepdefense\[nosuchframework\]"'):
        dd.get_backend("nosuchframework")


def test_incomplete_backend_says_what_it_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = EntryPoint("json", "json:decoder", seam.GROUP)
    monkeypatch.setattr(seam, "_entries", lambda: {"json": entry})
    with pytest.raises(TypeError, match=r"the entry point 'json' is no backend: it lacks asarray"):
        dd.get_backend("json")


def test_values_of_no_framework_are_told() -> None:
    with pytest.raises(
        dd.InputError, match=r"expected an array of numpy or torch, got builtins\.list"
    ):
        dd.rho([[1.0]], [[2.0]])


@pytest.mark.only("torch")
def test_arrays_of_two_frameworks_are_told() -> None:
    import torch

    with pytest.raises(dd.InputError, match="two frameworks in one call: numpy and torch"):
        dd.rho(np.ones((1, 2)), torch.ones(1, 2))
    with (
        dd.use_backend("numpy"),
        pytest.raises(dd.InputError, match=r'use_backend\("numpy"\) is in force, but .* of torch'),
    ):
        dd.rho(torch.ones(1, 2), torch.ones(1, 2))
