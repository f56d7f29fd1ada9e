"""The evaluation: figures that no scale, batch or order changes, and faults that are named."""

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

Model = Callable[[Any], Any]

NETWORK = TinyNetwork.draw(np.random.default_rng(3), [4, 8, 3], "tanh")
X = np.random.default_rng(4).normal(size=(24, 4))
Y = NETWORK(X).argmax(1)
Y[:2] = (Y[:2] + 1) % 3


def figures(report: Report) -> list[float]:
    """What must not depend on a scale, a batch or an order."""
    distance = report.distance
    return [
        report.accuracy,
        report.rho_2,
        report.rho_2_median,
        distance.median or 0.0,
        *(value or 0.0 for _, value in distance.quantiles),
        report.headline.robust_accuracy or 0.0,
        report.headline.eps or 0.0,
    ]


class _Evaluations(Harness):
    """`evaluate` and `doctor`, on small networks."""

    def reported(
        self, model: Model, x: np.ndarray = X, y: np.ndarray = Y, **options: Any
    ) -> Report:
        """A quick evaluation."""
        return evaluate(model, self.array(x), self.array(y), preset="quick", **options)

    def examined(self, model: Model, **options: Any) -> Diagnosis:
        """The cheap checks."""
        return doctor(model, self.array(X), self.array(Y), **options)

    def failing(self, model: Model) -> set[str]:
        """The names of the cheap checks that fail."""
        return {check.name for check in self.examined(model) if check.status == "fail"}


class EvaluationTests(_Evaluations):
    """What they say of a network."""

    def test_an_honest_network_gets_no_failing_check_and_true_distances(self) -> None:
        report = self.reported(self.model(NETWORK))
        assert [str(c) for c in report.checks if c.status == "fail"] == []
        assert report.trusted
        assert report.headline.withheld is None
        assert report.distance.wrong == 2
        assert report.distance.censored == 0
        assert report.headline.robust_accuracy == np.mean(
            report.distances > (report.headline.eps or 0) * (1 + 1e-6)
        )

        assert (NETWORK(report.minima.points).argmax(1) != Y).all()
        lengths = np.linalg.norm(report.minima.points - X, axis=1)
        assert np.allclose(lengths, report.distances)
        for line in report.attacks:
            assert line.rejected == 0

    def test_a_compiled_network_is_the_same(self) -> None:
        seam, model = self.seam, self.model(NETWORK)
        fast = seam.compiled(model)
        for x in (X, X[:5]):
            logits, fold = seam.class_gradients(fast, self.array(x))
            assert np.allclose(seam.to_numpy(logits), NETWORK(x), rtol=1e-12)
            way = np.zeros((len(x), 1, 3))
            way[:, 0, 1] = 1
            found = fold(lambda _, __, gradients: gradients, None, self.array(way))
            expected = np.stack([NETWORK.class_gradients(row)[1] for row in x])
            assert np.allclose(seam.to_numpy(found)[:, 0], expected, rtol=1e-6)

    def test_probabilities_are_named(self) -> None:
        assert "logits" in self.failing(self.softmax(self.model(NETWORK)))

    def test_a_vanishing_temperature_is_named(self) -> None:
        model = self.model(NETWORK)
        assert self.failing(lambda x: model(x) * 1e4) == {"saturation"}

    def test_random_outputs_are_named(self) -> None:
        model, random = self.model(NETWORK), np.random.default_rng(5)

        def noisy(x: Any) -> Any:
            logits = model(x)
            return logits + self.array(random.normal(size=tuple(logits.shape)))

        assert "randomness" in self.failing(noisy)

    def test_outputs_that_depend_on_the_batch_are_named(self) -> None:
        model = self.model(NETWORK)
        assert "batch independence" in self.failing(
            lambda x: model(x - reduce(x, "b d -> 1 d", "mean"))
        )

    def test_rounded_inputs_are_named(self) -> None:
        model, xp = self.model(NETWORK), self.seam.xp
        found = self.failing(lambda x: model(xp.floor(x * 4) / 4))
        assert found & {"gradients present", "gradients right"}

    def test_bad_evaluations_are_told(self) -> None:
        model = self.model(NETWORK)
        bad: list[tuple[dict[str, Any], str]] = [
            ({"p": 1}, "the norm of an evaluation must be 2 or inf, got 1"),
            ({"bounds": (0.0, 1.0)}, "examples must lie within the bounds, 0 to 1; they run"),
            ({"eps": -0.1}, "eps must be finite, 0 or more"),
            ({"batch_size": 0}, "batch_size must be a whole number, 1 or more"),
            ({"reference": lambda x: x}, "they must know the same classes"),
        ]
        for options, message in bad:
            with pytest.raises(InputError, match=message):
                self.reported(model, **options)
        with pytest.raises(InputError, match=r"does not take examples of shape \[3\] and type"):
            self.reported(model, X[:, :3])
        with pytest.raises(InputError, match="preset must be one of quick, standard, thorough"):
            evaluate(model, self.array(X), self.array(Y), preset="long")


class EvaluationLaws(_Evaluations):
    """What must not matter to an evaluation, and what it must keep to."""

    def test_a_larger_network_is_compared_on_the_same_examples(self) -> None:
        far = TinyNetwork((0.5 * NETWORK.weights[0], NETWORK.weights[1]), NETWORK.biases, "tanh")
        report = self.reported(self.model(far), reference=self.model(NETWORK))
        assert report.reference is not None
        assert report.comparison is not None
        assert report.reference_minima is not None
        before = report.reference_minima.distance
        assert report.comparison.better == np.mean(report.distances > before)
        assert "transfer does less" in {check.name for check in report.checks}

    def test_scale_of_the_logits_changes_no_figure(self) -> None:
        model = self.model(NETWORK)
        plain, loud = self.reported(model), self.reported(lambda x: 1e4 * model(x))
        assert np.allclose(figures(plain), figures(loud), rtol=1e-3, atol=1e-9)
        assert loud.headline.withheld is None
        for report, expected in ((plain, "pass"), (loud, "fail")):
            (check,) = (check for check in report.checks if check.name == "saturation")
            assert check.status == expected

    def test_batches_and_order_change_no_figure(self) -> None:
        model, x, y = self.model(NETWORK), X[:3], Y[:3]
        whole = self.reported(model, x, y, batch_size=1000)
        for other in (
            self.reported(model, x, y, batch_size=1),
            self.reported(model, x[::-1].copy(), y[::-1].copy(), batch_size=2),
        ):
            assert np.allclose(figures(whole), figures(other), rtol=1e-3, atol=1e-9)

    def test_bounds_and_eps_are_kept(self) -> None:
        x = np.clip(X, -1, 1)
        y = NETWORK(x).argmax(1)
        report = self.reported(
            self.model(NETWORK), x, y, p=np.inf, bounds=(-1.0, 1.0), eps=[0.1, 0.2]
        )
        found = report.minima
        assert (found.points >= -1).all()
        assert (found.points <= 1).all()
        assert report.headline.eps == 0.1
        assert {
            dict(line.settings)["eps"] for line in report.attacks if line.kind != "minimum-norm"
        } == {0.1, 0.2}
        assert report.rho_p is not None
        low = self.array(np.full(4, -1.0))
        again = self.reported(
            self.model(NETWORK), x, y, p=np.inf, bounds=(low, 1.0), eps=[0.1, 0.2]
        )
        assert np.allclose(figures(report), figures(again), rtol=1e-6)


class GradientFaultTests(Harness):
    """Faults of gradients that only automatic differentiation can have."""

    def test_a_gradient_of_another_function_is_named(self) -> None:
        model, seam = self.model(NETWORK), self.seam
        other = self.model(TinyNetwork.draw(np.random.default_rng(6), [4, 8, 3], "tanh"))

        def stuck(x: Any) -> Any:
            wrong = other(x)
            return seam.stop_gradient(model(x)) + wrong - seam.stop_gradient(wrong)

        found = doctor(stuck, self.array(X), self.array(Y))
        assert "gradients right" in {check.name for check in found if check.status == "fail"}
        half = self.array(np.array([[1.0, 1.0, 0.0, 0.0]]))
        part = doctor(
            lambda x: model(x * half + seam.stop_gradient(x * (1 - half))),
            self.array(X),
            self.array(Y),
        )
        assert "gradients right" in {check.name for check in part if check.status == "fail"}
        cut = doctor(lambda x: model(seam.stop_gradient(x)), self.array(X), self.array(Y))
        names = {check.name for check in cut if check.status == "fail"}
        assert {"gradients present", "gradients right"} <= names
