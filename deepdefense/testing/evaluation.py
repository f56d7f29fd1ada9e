"""Tests of `evaluate` and `doctor`: their reports, and the checks that detect faulty models."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from einops import reduce

from deepdefense.app.jobs.evaluate import evaluate
from deepdefense.errors import InputError
from deepdefense.evaluation import Diagnosis, Report, doctor
from deepdefense.testing.harness import Harness
from deepdefense_numpy.networks import TinyNetwork

__all__ = ["EvaluationLaws", "EvaluationTests", "GradientFaultTests"]

EvaluatedModel = Callable[[Any], Any]

EVALUATED_NETWORK = TinyNetwork.draw(np.random.default_rng(3), [4, 8, 3], "tanh")
INPUTS = np.random.default_rng(4).normal(size=(24, 4))
LABELS = EVALUATED_NETWORK(INPUTS).argmax(1)
LABELS[:2] = (LABELS[:2] + 1) % 3


def collect_figures(report: Report) -> list[float]:
    """Return the figures that must not depend on logit scale, batch size and order of examples."""
    distance = report.distance
    return [
        report.accuracy,
        report.rho_2,
        report.rho_2_median,
        distance.median or 0.0,
        *(value or 0.0 for value in distance.quantiles.values()),
        report.headline.robust_accuracy or 0.0,
        report.headline.eps or 0.0,
    ]


class _EvaluationHarness(Harness):
    """A harness that calls `evaluate` and `doctor` on small networks."""

    def evaluate_quickly(
        self, model: EvaluatedModel, x: np.ndarray = INPUTS, y: np.ndarray = LABELS, **options: Any
    ) -> Report:
        """Run `evaluate` with the preset quick, by default on `INPUTS` and `LABELS`."""
        return evaluate(model, self.to_array(x), self.to_array(y), preset="quick", **options)

    def diagnose(self, model: EvaluatedModel, **options: Any) -> Diagnosis:
        """Run the checks of `doctor` on `INPUTS` and `LABELS`."""
        return doctor(model, self.to_array(INPUTS), self.to_array(LABELS), **options)

    def find_failing_checks(self, model: EvaluatedModel) -> set[str]:
        """Return the names of the checks of `doctor` that fail for a model."""
        return {check.name for check in self.diagnose(model) if check.status == "fail"}


class EvaluationTests(_EvaluationHarness):
    """Tests of the report on a network without faults, and of checks on models with faults."""

    def test_a_sound_network_passes_all_checks_and_gets_true_distances(self) -> None:
        report = self.evaluate_quickly(self.build_model(EVALUATED_NETWORK))
        assert [str(c) for c in report.checks if c.status == "fail"] == []
        assert report.trusted
        assert report.headline.withheld is None
        assert report.distance.wrong == 2
        assert report.distance.censored == 0
        assert report.headline.robust_accuracy == np.mean(
            report.distances > (report.headline.eps or 0) * (1 + 1e-6)
        )

        assert (EVALUATED_NETWORK(report.minima.points).argmax(1) != LABELS).all()
        lengths = np.linalg.norm(report.minima.points - INPUTS, axis=1)
        assert np.allclose(lengths, report.distances)
        for line in report.attacks:
            assert line.rejected == 0

    def test_a_compiled_network_returns_the_same(self) -> None:
        seam, model = self.seam, self.build_model(EVALUATED_NETWORK)
        fast = seam.compiled(model)
        for x in (INPUTS, INPUTS[:5]):
            logits, fold = seam.class_gradients(fast, self.to_array(x))
            assert np.allclose(seam.to_numpy(logits), EVALUATED_NETWORK(x), rtol=1e-12)
            contrast = np.zeros((len(x), 1, 3))
            contrast[:, 0, 1] = 1
            result = fold(lambda _, __, gradients: gradients, None, self.to_array(contrast))
            expected = np.stack([EVALUATED_NETWORK.class_gradients(row)[1] for row in x])
            assert np.allclose(seam.to_numpy(result)[:, 0], expected, rtol=1e-6)

    def test_probabilities_fail_a_check(self) -> None:
        assert "logits" in self.find_failing_checks(
            self.append_softmax(self.build_model(EVALUATED_NETWORK))
        )

    def test_saturated_logits_fail_a_check(self) -> None:
        model = self.build_model(EVALUATED_NETWORK)
        assert self.find_failing_checks(lambda x: model(x) * 1e4) == {"saturation"}

    def test_random_outputs_fail_a_check(self) -> None:
        model, random = self.build_model(EVALUATED_NETWORK), np.random.default_rng(5)

        def noisy(x: Any) -> Any:
            logits = model(x)
            return logits + self.to_array(random.normal(size=tuple(logits.shape)))

        assert "randomness" in self.find_failing_checks(noisy)

    def test_outputs_that_depend_on_the_batch_fail_a_check(self) -> None:
        model = self.build_model(EVALUATED_NETWORK)
        assert "batch independence" in self.find_failing_checks(
            lambda x: model(x - reduce(x, "b d -> 1 d", "mean"))
        )

    def test_rounded_inputs_fail_a_check(self) -> None:
        model, xp = self.build_model(EVALUATED_NETWORK), self.seam.xp
        result = self.find_failing_checks(lambda x: model(xp.floor(x * 4) / 4))
        assert result & {"gradients present", "gradients right"}

    def test_bad_evaluation_settings_raise(self) -> None:
        model = self.build_model(EVALUATED_NETWORK)
        bad: list[tuple[dict[str, Any], str]] = [
            ({"p": 1}, "the norm of an evaluation must be 2 or inf, got 1"),
            ({"bounds": (0.0, 1.0)}, "examples must lie within the bounds, 0 to 1; they run"),
            ({"eps": -0.1}, "eps must be finite, 0 or more"),
            ({"batch_size": 0}, "batch_size must be a whole number, 1 or more"),
            ({"reference": lambda x: x}, "they must know the same classes"),
        ]
        for options, message in bad:
            with pytest.raises(InputError, match=message):
                self.evaluate_quickly(model, **options)
        with pytest.raises(InputError, match=r"does not take examples of shape \[3\] and type"):
            self.evaluate_quickly(model, INPUTS[:, :3])
        with pytest.raises(InputError, match="preset must be one of quick, standard, thorough"):
            evaluate(model, self.to_array(INPUTS), self.to_array(LABELS), preset="long")


class EvaluationLaws(_EvaluationHarness):
    """Tests of the invariances of a report, its comparison of networks, and its bounds and eps."""

    def test_a_reference_is_compared_on_the_same_examples(self) -> None:
        far = TinyNetwork(
            (0.5 * EVALUATED_NETWORK.weights[0], EVALUATED_NETWORK.weights[1]),
            EVALUATED_NETWORK.biases,
            "tanh",
        )
        report = self.evaluate_quickly(
            self.build_model(far), reference=self.build_model(EVALUATED_NETWORK)
        )
        assert report.reference is not None
        assert report.comparison is not None
        assert report.reference_minima is not None
        before = report.reference_minima.distance
        assert report.comparison.better == np.mean(report.distances > before)
        assert "transfer does less" in {check.name for check in report.checks}

    def test_scale_of_the_logits_changes_no_figure(self) -> None:
        model = self.build_model(EVALUATED_NETWORK)
        plain, scaled = (
            self.evaluate_quickly(model),
            self.evaluate_quickly(lambda x: 1e4 * model(x)),
        )
        assert np.allclose(collect_figures(plain), collect_figures(scaled), rtol=1e-3, atol=1e-9)
        assert scaled.headline.withheld is None
        for report, expected in ((plain, "pass"), (scaled, "fail")):
            (check,) = (check for check in report.checks if check.name == "saturation")
            assert check.status == expected

    def test_batches_and_order_change_no_figure(self) -> None:
        model, x, y = self.build_model(EVALUATED_NETWORK), INPUTS[:3], LABELS[:3]
        whole = self.evaluate_quickly(model, x, y, batch_size=1000)
        for other in (
            self.evaluate_quickly(model, x, y, batch_size=1),
            self.evaluate_quickly(model, x[::-1].copy(), y[::-1].copy(), batch_size=2),
        ):
            assert np.allclose(collect_figures(whole), collect_figures(other), rtol=1e-3, atol=1e-9)

    def test_bounds_and_eps_are_respected(self) -> None:
        x = np.clip(INPUTS, -1, 1)
        y = EVALUATED_NETWORK(x).argmax(1)
        report = self.evaluate_quickly(
            self.build_model(EVALUATED_NETWORK), x, y, p=np.inf, bounds=(-1.0, 1.0), eps=[0.1, 0.2]
        )
        result = report.minima
        assert (result.points >= -1).all()
        assert (result.points <= 1).all()
        assert report.headline.eps == 0.1
        assert {line.settings["eps"] for line in report.attacks if line.kind != "minimum-norm"} == {
            0.1,
            0.2,
        }
        assert report.rho_p is not None
        low = self.to_array(np.full(4, -1.0))
        again = self.evaluate_quickly(
            self.build_model(EVALUATED_NETWORK), x, y, p=np.inf, bounds=(low, 1.0), eps=[0.1, 0.2]
        )
        assert np.allclose(collect_figures(report), collect_figures(again), rtol=1e-6)


class GradientFaultTests(Harness):
    """Tests of `doctor` on models whose gradients are wrong, for which a check must fail.

    A backend of finite differences cannot run these tests, because it derives the gradients from
    the model's outputs.
    """

    def test_a_gradient_of_another_function_fails_a_check(self) -> None:
        model, seam = self.build_model(EVALUATED_NETWORK), self.seam
        other = self.build_model(TinyNetwork.draw(np.random.default_rng(6), [4, 8, 3], "tanh"))

        def replace_gradient(x: Any) -> Any:
            wrong = other(x)
            return seam.stop_gradient(model(x)) + wrong - seam.stop_gradient(wrong)

        result = doctor(replace_gradient, self.to_array(INPUTS), self.to_array(LABELS))
        assert "gradients right" in {check.name for check in result if check.status == "fail"}
        half = self.to_array(np.array([[1.0, 1.0, 0.0, 0.0]]))
        part = doctor(
            lambda x: model(x * half + seam.stop_gradient(x * (1 - half))),
            self.to_array(INPUTS),
            self.to_array(LABELS),
        )
        assert "gradients right" in {check.name for check in part if check.status == "fail"}
        cut = doctor(
            lambda x: model(seam.stop_gradient(x)), self.to_array(INPUTS), self.to_array(LABELS)
        )
        names = {check.name for check in cut if check.status == "fail"}
        assert {"gradients present", "gradients right"} <= names
