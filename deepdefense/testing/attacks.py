"""Tests of all attacks: distances on linear networks, bounds, failures and invariances."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest

from deepdefense import attacks
from deepdefense.attacks.common.problem import Perturbation
from deepdefense.errors import InputError
from deepdefense.testing.harness import Harness
from deepdefense.testing.linear import (
    INPUT_SIZE,
    draw_linear_network,
    measure_boundary_distances,
    measure_lengths,
)
from deepdefense_numpy.networks import TinyNetwork

__all__ = ["AttackLaws", "AttackTests"]

TestedAttack = Callable[..., Perturbation]

# Attacks, each with the order p of the norm that it minimises. They make few steps, because these
# tests do not compile them.
MINIMUM_NORM_ATTACKS: dict[str, tuple[TestedAttack, float]] = {
    "deepfool-2": (partial(attacks.deepfool, overshoot=0.005), 2),
    "deepfool-inf": (partial(attacks.deepfool, overshoot=0.005, p=math.inf), math.inf),
    "superdeepfool-2": (attacks.superdeepfool, 2),
    "superdeepfool-inf": (partial(attacks.superdeepfool, p=math.inf), math.inf),
    "ddn-2": (partial(attacks.ddn, steps=60), 2),
    "fmn-2": (partial(attacks.fmn, steps=60), 2),
    "fmn-inf": (partial(attacks.fmn, steps=60, p=math.inf), math.inf),
    "cw-2": (partial(attacks.cw, steps=60, searches=6), 2),
}
FIXED_BUDGET_ATTACKS: dict[str, TestedAttack] = {
    "pgd": attacks.pgd,
    "apgd": partial(attacks.apgd, steps=30),
    "apgd-dlr": partial(attacks.apgd, steps=30, loss="dlr"),
    "apgd-t": partial(attacks.apgd, steps=30, loss="targeted-dlr"),
}
TARGETED_ATTACKS: dict[str, TestedAttack] = {
    "ddn": partial(attacks.ddn, steps=30),
    "fmn": partial(attacks.fmn, steps=30),
    "cw": partial(attacks.cw, steps=30, searches=4),
    "pgd": partial(attacks.pgd, eps=9.0, steps=20),
    "apgd": partial(attacks.apgd, eps=9.0, steps=20, p=2),
    "square": partial(attacks.square, eps=9.0, steps=60),
}
ALL_ATTACKS: dict[str, TestedAttack] = {
    **TARGETED_ATTACKS,
    "deepfool": attacks.deepfool,
    "superdeepfool": attacks.superdeepfool,
    "fgsm": partial(attacks.fgsm, eps=9.0),
}


class _AttackHarness(Harness):
    """A harness that runs an attack in the tested backend, without compiling it."""

    def run_attack(
        self,
        attack: TestedAttack,
        network: TinyNetwork,
        x: np.ndarray,
        y: Any = None,
        **options: Any,
    ) -> Perturbation:
        """Run an attack with arrays of the tested backend; return its result in NumPy arrays."""
        labels = None if y is None else self.to_array(np.asarray(y))
        perturbation = attack(
            self.build_model(network, dtype=x.dtype), self.to_array(x), labels, **options
        )
        return Perturbation(*map(self.seam.to_numpy, perturbation))


class AttackTests(_AttackHarness):
    """Tests of attacks against known distances and target classes, and of their bounds."""

    @pytest.mark.parametrize("name", MINIMUM_NORM_ATTACKS)
    @pytest.mark.parametrize(("classes", "scale"), [(2, 1.0), (10, 100.0)])
    def test_minimum_norm_attack_finds_the_distance_to_a_linear_boundary(
        self, name: str, classes: int, scale: float
    ) -> None:
        attack, p = MINIMUM_NORM_ATTACKS[name]
        network, x = draw_linear_network(classes, seed=1, scale=scale)
        result = self.run_attack(attack, network, x)
        assert result.success.all()
        assert (network(result.x).argmax(1) != network(x).argmax(1)).all()
        ratios = measure_lengths(result.delta, p) / measure_boundary_distances(network, x, p).min(1)
        assert (ratios > 1 - 1e-9).all()
        assert (ratios < 1.01).all(), ratios

    @pytest.mark.parametrize("p", [1, 2, math.inf])
    def test_fgsm_crosses_a_linear_boundary_only_beyond_its_distance(self, p: float) -> None:
        network, x = draw_linear_network(2, seed=3)
        distance = measure_boundary_distances(network, x, p).min(1)
        for factor in (0.999, 1.001):
            for row, row_distance in zip(x, distance, strict=True):
                eps = float(factor * row_distance)
                result = self.run_attack(attacks.fgsm, network, row[None], eps=eps, p=p)
                assert result.success.item() == (factor > 1)
                assert np.isclose(measure_lengths(result.delta, p), eps)

    @pytest.mark.parametrize("name", TARGETED_ATTACKS)
    def test_targeted_attack_reaches_the_target_class(self, name: str) -> None:
        network, x = draw_linear_network(4, seed=5)
        clean = network(x).argmax(1)
        target = (clean + 1) % 4
        target[0] = clean[0]
        result = self.run_attack(TARGETED_ATTACKS[name], network, x, target, targeted=True)
        reached = network(result.x).argmax(1) == target
        assert (reached == result.success).all()
        assert result.success.mean() > 0.7
        assert result.success[0]
        assert result.steps[0] == 0
        assert (result.delta[0] == 0).all()

    @pytest.mark.parametrize("name", ALL_ATTACKS)
    def test_adversarial_examples_stay_within_bounds(self, name: str) -> None:
        network, x = draw_linear_network(3, seed=6)
        x = np.clip(x, -1, 1)
        low, high = np.full(INPUT_SIZE, -1.0), np.linspace(1.0, 1.4, INPUT_SIZE)
        native = (self.to_array(low), self.to_array(high))
        for bounds, lowest, highest in (
            ((-1.0, 1.2), -1.0, 1.2),
            (native, low, high),
            ((low, 1.2), low, 1.2),
        ):
            result = self.run_attack(ALL_ATTACKS[name], network, x, bounds=bounds)
            assert (result.x >= lowest).all()
            assert (result.x <= highest).all()
            fooled = network(result.x).argmax(1) != network(x).argmax(1)
            assert (fooled == result.success).all()
            assert result.success.any()
            assert (result.delta == result.x - x).all()

    @pytest.mark.parametrize("name", ALL_ATTACKS)
    def test_misclassified_examples_stay_and_failures_are_no_success(self, name: str) -> None:
        network, x = draw_linear_network(3, seed=7)
        x[1] = np.nan
        y = network(np.nan_to_num(x)).argmax(1)
        y[0] = (y[0] + 1) % 3
        result = self.run_attack(ALL_ATTACKS[name], network, x, y)
        assert result.success[0]
        assert result.steps[0] == 0
        assert (result.delta[0] == 0).all()
        assert not result.success[1]
        assert result.success[2:].all() or name in ("square", "fgsm")
        dead = TinyNetwork((0 * network.weights[0],), network.biases, "identity")
        result = self.run_attack(ALL_ATTACKS[name], dead, x)
        assert not result.success.any()
        assert np.isfinite(result.delta[2:]).all()

    def test_bad_attack_settings_raise(self) -> None:
        network, x = draw_linear_network(2, seed=10)
        bad: list[tuple[TestedAttack, dict[str, Any], str]] = [
            (attacks.pgd, {"eps": -1.0}, "eps must be finite, 0 or more"),
            (attacks.pgd, {"eps": 1.0, "p": 1}, "p must be 2 or inf"),
            (attacks.apgd, {"eps": 1.0, "loss": "hinge"}, "loss must be one of cross-entropy"),
            (attacks.apgd, {"eps": 1.0, "targeted": True}, "needs y, the class that each"),
            (attacks.ddn, {"gamma": 1.5}, "gamma must be finite, 0 or more and less than 1"),
            (attacks.cw, {"searches": 0}, "searches must be a whole number, 1 or more"),
            (attacks.square, {"eps": 1.0, "steps": 0}, "steps must be a whole number"),
            (attacks.fmn, {"bounds": (1, 0)}, "low < high"),
            (attacks.fmn, {"bounds": (self.to_array(np.zeros(3)), 1.0)}, "the shape of an example"),
            (attacks.pgd, {"eps": 1.0, "bounds": (-0.1, 0.1)}, "must lie within the bounds, -0.1"),
            (attacks.ddn, {"bounds": (np.full(INPUT_SIZE, 9.0), 9.0)}, "low < high everywhere"),
        ]
        for attack, options, message in bad:
            with pytest.raises(InputError, match=message):
                self.run_attack(attack, network, x, **options)


class AttackLaws(_AttackHarness):
    """Tests of the eps at which fixed-budget attacks succeed, and of all attacks' invariances."""

    @pytest.mark.parametrize("name", FIXED_BUDGET_ATTACKS)
    @pytest.mark.parametrize("p", [2, math.inf])
    def test_fixed_budget_attack_succeeds_only_beyond_the_distance(
        self, name: str, p: float
    ) -> None:
        network, x = draw_linear_network(10, seed=2)
        distance = measure_boundary_distances(network, x, p).min(1)
        # An attack must succeed if the distance is less than eps / slack. The slack is small only
        # for apgd-t, which targets each class in turn. The other attacks follow one loss, which may
        # lead to a class whose boundary is not the nearest.
        slack = 1.03 if name == "apgd-t" else 2.0
        eps = float(np.quantile(distance, 0.7))
        assert (distance < eps / slack).any()
        assert (distance > eps).any()
        result = self.run_attack(FIXED_BUDGET_ATTACKS[name], network, x, eps=eps, p=p)
        assert result.success[distance < eps / slack].all()
        assert not result.success[distance > eps].any()
        assert (measure_lengths(result.delta, p) <= eps * (1 + 1e-9)).all()
        fooled = network(result.x).argmax(1) != network(x).argmax(1)
        assert (fooled == result.success).all()

    @pytest.mark.parametrize(
        ("p", "shape"), [(2, (12,)), (math.inf, (3, 2, 2)), (2, (2, 2, 3)), (math.inf, (3, 4))]
    )
    def test_square_attack_succeeds_only_beyond_the_distance(
        self, p: float, shape: tuple[int, ...]
    ) -> None:
        network, x = draw_linear_network(3, seed=4)
        distance = measure_boundary_distances(network, x, p).min(1)
        eps = float(2 * np.median(distance))
        result = self.run_attack(
            attacks.square, network, x.reshape(-1, *shape), eps=eps, p=p, steps=400
        )
        assert result.success[distance < eps / 1.9].all()
        assert not result.success[distance > eps].any()
        assert (measure_lengths(result.delta, p) <= eps * (1 + 1e-9)).all()

    @pytest.mark.parametrize("name", ALL_ATTACKS)
    def test_batch_and_order_change_no_result(self, name: str) -> None:
        rng = np.random.default_rng(8)
        network = TinyNetwork.draw(rng, [4, 6, 3], "tanh")
        x = rng.normal(size=(4, 4))
        options = {"eps": 0.3} if name in ("fgsm", "pgd", "apgd", "square") else {}
        whole = self.run_attack(ALL_ATTACKS[name], network, x, **options)
        reversed_order = self.run_attack(ALL_ATTACKS[name], network, x[::-1].copy(), **options)
        alone = self.run_attack(ALL_ATTACKS[name], network, x[1:2], **options)
        # Rounding errors depend on the size of the batch, and an attack whose next step depends on
        # whether the point is adversarial may amplify them. FMN has shown differences of 4e-5.
        assert np.allclose(whole.x, reversed_order.x[::-1], rtol=0, atol=1e-3)
        assert np.allclose(whole.x[1:2], alone.x, rtol=0, atol=1e-3)
        assert (whole.steps == reversed_order.steps[::-1]).all()

    @pytest.mark.parametrize("name", ALL_ATTACKS)
    def test_large_logits_do_not_stop_an_attack(self, name: str) -> None:
        rng = np.random.default_rng(9)
        network = TinyNetwork.draw(rng, [4, 6, 3], "tanh")
        scaled = TinyNetwork(
            (*network.weights[:-1], 1e4 * network.weights[-1]),
            (*network.biases[:-1], 1e4 * network.biases[-1]),
            "tanh",
        )
        x = rng.normal(size=(6, 4)).astype(np.float32)
        assert self.run_attack(ALL_ATTACKS[name], scaled, x).success.mean() >= 0.5
