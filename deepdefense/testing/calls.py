"""Tests of public functions called without compilation: results, warnings and errors."""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from deepdefense.app.jobs.evaluate import evaluate
from deepdefense.attacks.ddn import ddn
from deepdefense.attacks.deepfool import deepfool
from deepdefense.defenses.deep_defense import DeepDefense
from deepdefense.errors import InputError, ProbabilityWarning
from deepdefense.evaluation import Measurement, Report, Summary, measure_rho
from deepdefense.evaluation.rho_protocol import summarize_in_norm
from deepdefense.geometry.rho import rho
from deepdefense.seam.choosing import current_backend, get_backend, use_backend
from deepdefense.testing.harness import Harness
from deepdefense.testing.linear import make_linear_network
from deepdefense_numpy import oracle
from deepdefense_numpy.networks import TinyNetwork

__all__ = ["CallTests"]

BAD_SETTINGS = [
    ({"p": 0.5}, "p must be a number from 1 to inf, got 0.5"),
    ({"p": "2"}, "p must be a number"),
    ({"steps": 0}, "steps must be a whole number, 1 or more, got 0"),
    ({"candidates": 1}, "candidates must be a whole number, 2 or more, got 1"),
    ({"bounds": (1, 0)}, "low < high"),
    ({"bounds": 3}, "bounds must be a pair"),
    ({"overshoot": -1.0}, "overshoot must be finite, 0 or more"),
]
CALLED_NETWORK = TinyNetwork.draw(np.random.default_rng(0), [4, 6, 3], "tanh")


def _make_constant_model(value: Any) -> Callable[[Any], Any]:
    """Return a model that returns `value` for every input."""
    return lambda x: value


class CallTests(Harness):
    """Tests of calls with concrete values, which no compiler traces."""

    def evaluate_network(self, x: np.ndarray, y: np.ndarray, **options: Any) -> Report:
        """Run `evaluate` on `CALLED_NETWORK`."""
        return evaluate(
            self.build_model(CALLED_NETWORK), self.to_array(x), self.to_array(y), **options
        )

    def summarize_network(
        self, x: np.ndarray, y: np.ndarray, p: float = 2, batch_size: int = 500
    ) -> Summary:
        """Return only accuracy and rho of `CALLED_NETWORK`, as `evaluate` computes them."""
        model, x, y = self.build_model(CALLED_NETWORK), self.to_array(x), self.to_array(y)

        def measure(order: float) -> Measurement:
            options: dict[str, Any] = {"like": x, "p": order, "batch_size": batch_size}
            return measure_rho(model, x, y, backend=self.seam, **options)

        return summarize_in_norm(p, measure)[0]

    @pytest.mark.parametrize(("options", "message"), BAD_SETTINGS)
    def test_bad_settings_raise(self, options: dict[str, Any], message: str) -> None:
        model = self.build_model(make_linear_network([[1.0, 2.0], [3.0, -1.0]], [0.0, 1.0]))
        with pytest.raises(InputError, match=message):
            deepfool(model, self.to_array(np.ones((1, 2))), **options)

    def test_bad_labels_raise(self) -> None:
        model = self.build_model(make_linear_network([[1.0, 2.0], [3.0, -1.0]], [0.0, 1.0]))
        x = self.to_array(np.ones((2, 2)))
        with pytest.raises(InputError, match=r"labels must be class indices \[b\] with b = 2"):
            deepfool(model, x, self.to_array(np.array([0, 1, 1])))
        with pytest.raises(InputError, match=r"labels must lie in 0\.\.1 for 2 logits, got 0\.\.7"):
            deepfool(model, x, self.to_array(np.array([0, 7])))
        with pytest.raises(
            InputError, match=r"labels must lie in 0\.\.1 for 2 logits, got -1\.\.1"
        ):
            deepfool(model, x, self.to_array(np.array([-1, 1])))
        with pytest.raises(InputError, match="labels must be integers"):
            deepfool(model, x, self.to_array(np.array([0.0, 1.0])))

    def test_bad_models_raise(self) -> None:
        x = self.to_array(np.ones((2, 2)))
        with pytest.raises(InputError, match="two classes or more"):
            deepfool(self.build_model(make_linear_network([[1.0, 2.0]], [0.0])), x)
        with pytest.raises(InputError, match=r"logits \[2 k\], it returned shape \[2\]"):
            deepfool(lambda x: x[:, 0], x)
        if self.backend != "numpy":
            with pytest.raises(InputError, match="the model returned logits of numpy"):
                deepfool(lambda x: np.ones((2, 3)), x)
        labels = self.to_array(np.zeros(2, int))
        for other in ([[1.0, 2.0, 3.0]] * 2, (x, None), {"logits": x}):
            for call in (deepfool, DeepDefense(), DeepDefense.fast().objective):
                message = f"its logits [b k] and nothing else, it returned {type(other).__name__}"
                with pytest.raises(InputError, match=re.escape(message)):
                    call(_make_constant_model(other), x, labels)

    def test_probabilities_warn(self) -> None:
        model = self.build_model(make_linear_network([[1.0, 2.0], [3.0, -1.0]], [0.0, 1.0]))
        softmax = self.append_softmax(model)
        x, y = self.to_array(np.array([[1.0, 2.0], [0.5, -1.0]])), self.to_array(np.array([0, 1]))
        for call in (deepfool, ddn, DeepDefense(), DeepDefense.fast()):
            with pytest.warns(ProbabilityWarning, match="leave the softmax out"):
                call(softmax, x, y)
            call(model, x, y)  # must not warn
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            evaluate(softmax, x, y)  # must not warn, since a check in the report fails instead

    def test_half_precision_raises(self) -> None:
        labels = self.to_array(np.zeros(2, int))
        with pytest.raises(InputError, match="must be float32 or float64"):
            deepfool(lambda x: x, self.to_array(np.ones((2, 2), np.float16)))
        with pytest.raises(InputError, match="must be float32 or float64"):
            # The error must be raised before the model is called, because the model may not support
            # half precision. This model raises ZeroDivisionError if it is called.
            DeepDefense()(lambda x: 1 / 0, self.to_array(np.ones((2, 2), np.float16)), labels)

    def test_rho_of_two_shapes_raises(self) -> None:
        delta, x = self.to_array(np.ones((2, 3))), self.to_array(np.ones((2, 4)))
        with pytest.raises(InputError, match=r"delta \(2, 3\) and x \(2, 4\) must have one shape"):
            rho(delta, x)

    def test_use_backend_is_a_function_and_a_context_manager(self) -> None:
        assert current_backend() is None
        with use_backend(self.backend) as backend:
            assert backend is get_backend(self.backend)
            with use_backend("numpy"):
                assert current_backend() is get_backend("numpy")
            assert current_backend() is backend
        assert current_backend() is None
        chosen = use_backend(self.backend)
        assert current_backend() is self.seam
        chosen.__exit__()
        assert current_backend() is None

    def test_rho_is_the_mean_over_examples(self) -> None:
        rng = np.random.default_rng(1)
        x, y = rng.normal(size=(23, 4)), rng.integers(0, 3, 23)
        walks = [oracle.deepfool(CALLED_NETWORK, row) for row in x]
        ratios = [oracle.rho(w.delta, row, 2) for w, row in zip(walks, x, strict=True)]
        report = self.summarize_network(x, y, p=math.inf, batch_size=20)
        assert report.n == 23
        assert report.accuracy == pytest.approx((CALLED_NETWORK(x).argmax(1) == y).mean())
        assert report.rho_2 == pytest.approx(np.mean(ratios), rel=1e-5)
        assert report.rho_2_median == pytest.approx(np.median(ratios), rel=1e-5)
        assert report.success == np.mean([w.success for w in walks])
        assert report.iterations_mean == np.mean([w.steps for w in walks])
        assert report.unmeasured == 0
        assert report.rho_p is not None
        assert 0 < report.rho_p < report.rho_2 * 2

    def test_examples_without_rho_are_counted(self) -> None:
        x = np.random.default_rng(1).normal(size=(4, 4))
        y = CALLED_NETWORK(x).argmax(1)
        ratios = [oracle.rho(oracle.deepfool(CALLED_NETWORK, row).delta, row, 2) for row in x[2:]]
        x[0, 1], x[1] = math.nan, 0
        with np.errstate(invalid="ignore"):
            report = self.summarize_network(x, y)
        assert report.unmeasured == 2
        assert report.success == 0.75
        assert report.rho_2 == pytest.approx(np.sum(ratios) / 4, rel=1e-5)
        assert report.accuracy <= 0.75

    def test_evaluate_raises_for_bad_input(self) -> None:
        with pytest.raises(InputError, match="no example"):
            self.evaluate_network(np.zeros((0, 4)), np.zeros(0, np.int64))
        x, y = np.zeros((2, 4)), np.zeros(2, np.int64)
        with pytest.raises(InputError, match="batch_size must be a whole number, 1 or more"):
            self.evaluate_network(x, y, batch_size=0)
        with pytest.raises(InputError, match="p must be a number"):
            self.evaluate_network(x, y, p=0)

    def test_reports_are_comparable_and_host_data_go_to_the_chosen_backend(self) -> None:
        x = np.random.default_rng(1).normal(size=(4, 4))
        y = CALLED_NETWORK(x).argmax(1)
        first = self.evaluate_network(x, y)
        with use_backend(self.backend):
            second = evaluate(self.build_model(CALLED_NETWORK), x, y)
        assert first == second
        assert hash(first) == hash(second)
        keys = {"accuracy", "rho_2", "rho_2_median", "success", "iterations_mean", "n"}
        assert keys | {"unmeasured", "headline", "checks"} <= first.as_dict().keys()
        assert "rho_p" not in first.as_dict()
