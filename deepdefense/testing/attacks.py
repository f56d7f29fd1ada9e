"""The attacks of an evaluation: the distances of linear models, and what each must keep to."""

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
from deepdefense_numpy.networks import TinyNetwork

__all__ = ["AttackLaws", "AttackTests"]

Attack = Callable[..., Perturbation]

# With few steps, as frameworks take milliseconds for each outside of a compiled function.
NEAREST: dict[str, tuple[Attack, float]] = {
    "deepfool-2": (partial(attacks.deepfool, overshoot=0.005), 2),
    "deepfool-inf": (partial(attacks.deepfool, overshoot=0.005, p=math.inf), math.inf),
    "superdeepfool-2": (attacks.superdeepfool, 2),
    "superdeepfool-inf": (partial(attacks.superdeepfool, p=math.inf), math.inf),
    "ddn-2": (partial(attacks.ddn, steps=60), 2),
    "fmn-2": (partial(attacks.fmn, steps=60), 2),
    "fmn-inf": (partial(attacks.fmn, steps=60, p=math.inf), math.inf),
    "cw-2": (partial(attacks.cw, steps=60, searches=6), 2),
}
WITHIN: dict[str, Attack] = {
    "pgd": attacks.pgd,
    "apgd": partial(attacks.apgd, steps=30),
    "apgd-dlr": partial(attacks.apgd, steps=30, loss="dlr"),
    "apgd-t": partial(attacks.apgd, steps=30, loss="targeted-dlr"),
}
TARGETED: dict[str, Attack] = {
    "ddn": partial(attacks.ddn, steps=30),
    "fmn": partial(attacks.fmn, steps=30),
    "cw": partial(attacks.cw, steps=30, searches=4),
    "pgd": partial(attacks.pgd, eps=9.0, steps=20),
    "apgd": partial(attacks.apgd, eps=9.0, steps=20, p=2),
    "square": partial(attacks.square, eps=9.0, steps=60),
}
ALL: dict[str, Attack] = {
    **TARGETED,
    "deepfool": attacks.deepfool,
    "superdeepfool": attacks.superdeepfool,
    "fgsm": partial(attacks.fgsm, eps=9.0),
}
EXAMPLES, DEPTH = 6, 12


def linear_model(classes: int, seed: int, scale: float = 1.0) -> tuple[TinyNetwork, np.ndarray]:
    """A linear network and examples of it, the inputs in units of 1 / scale."""
    rng = np.random.default_rng(seed)
    weight = rng.normal(size=(classes, DEPTH)) / scale
    network = TinyNetwork((weight,), (rng.normal(size=classes),), "identity")
    return network, scale * rng.normal(size=(EXAMPLES, DEPTH))


def exact(network: TinyNetwork, x: np.ndarray, p: float) -> np.ndarray:
    """The distance of each example to the nearest decision boundary of a linear network."""
    weight, logits = network.weights[0], network(x)
    found = []
    for row in logits:
        k = int(row.argmax())
        rivals = [j for j in range(len(row)) if j != k]
        order = {1.0: math.inf, math.inf: 1.0, 2: 2}[p]
        slopes = [np.linalg.norm(weight[j] - weight[k], order) for j in rivals]
        found.append(min((row[k] - row[j]) / s for j, s in zip(rivals, slopes, strict=True)))
    return np.array(found)


def lengths(delta: np.ndarray, p: float) -> np.ndarray:
    norms: np.ndarray = np.linalg.norm(delta.reshape(len(delta), -1), p, axis=1)
    return norms


class _Attacks(Harness):
    """Attacks, called as an evaluation calls them."""

    def attacked(
        self, attack: Attack, network: TinyNetwork, x: np.ndarray, y: Any = None, **options: Any
    ) -> Perturbation:
        """The attack on the network, its results as NumPy's; y as this framework's, if given."""
        labels = None if y is None else self.array(np.asarray(y))
        found = attack(self.model(network, dtype=x.dtype), self.array(x), labels, **options)
        return Perturbation(*map(self.seam.to_numpy, found))


class AttackTests(_Attacks):
    """What every attack must find, and keep to."""

    @pytest.mark.parametrize("name", NEAREST)
    @pytest.mark.parametrize(("classes", "scale"), [(2, 1.0), (10, 100.0)])
    def test_distance_to_a_linear_boundary_is_exact(
        self, name: str, classes: int, scale: float
    ) -> None:
        attack, p = NEAREST[name]
        network, x = linear_model(classes, seed=1, scale=scale)
        found = self.attacked(attack, network, x)
        assert found.success.all()
        assert (network(found.x).argmax(1) != network(x).argmax(1)).all()
        ratios = lengths(found.delta, p) / exact(network, x, p)
        assert (ratios > 1 - 1e-9).all()
        assert (ratios < 1.01).all(), ratios

    @pytest.mark.parametrize("p", [1, 2, math.inf])
    def test_one_step_crosses_the_boundary_of_two_classes(self, p: float) -> None:
        network, x = linear_model(2, seed=3)
        distance = exact(network, x, p)
        for factor in (0.999, 1.001):
            for row, far in zip(x, distance, strict=True):
                eps = float(factor * far)
                found = self.attacked(attacks.fgsm, network, row[None], eps=eps, p=p)
                assert found.success.item() == (factor > 1)
                assert np.isclose(lengths(found.delta, p), eps)

    @pytest.mark.parametrize("name", TARGETED)
    def test_targeted_attacks_reach_the_class_asked_for(self, name: str) -> None:
        network, x = linear_model(4, seed=5)
        clean = network(x).argmax(1)
        target = (clean + 1) % 4
        target[0] = clean[0]
        found = self.attacked(TARGETED[name], network, x, target, targeted=True)
        reached = network(found.x).argmax(1) == target
        assert (reached == found.success).all()
        assert found.success.mean() > 0.7
        assert found.success[0]
        assert found.steps[0] == 0
        assert (found.delta[0] == 0).all()

    @pytest.mark.parametrize("name", ALL)
    def test_stays_inside_of_the_bounds(self, name: str) -> None:
        network, x = linear_model(3, seed=6)
        x = np.clip(x, -1, 1)
        low, high = np.full(DEPTH, -1.0), np.linspace(1.0, 1.4, DEPTH)
        native = (self.array(low), self.array(high))
        for bounds, lowest, highest in (
            ((-1.0, 1.2), -1.0, 1.2),
            (native, low, high),
            ((low, 1.2), low, 1.2),
        ):
            found = self.attacked(ALL[name], network, x, bounds=bounds)
            assert (found.x >= lowest).all()
            assert (found.x <= highest).all()
            fooled = network(found.x).argmax(1) != network(x).argmax(1)
            assert (fooled == found.success).all()
            assert found.success.any()
            assert (found.delta == found.x - x).all()

    @pytest.mark.parametrize("name", ALL)
    def test_what_is_missed_is_left_and_failures_are_failures(self, name: str) -> None:
        network, x = linear_model(3, seed=7)
        x[1] = np.nan
        y = network(np.nan_to_num(x)).argmax(1)
        y[0] = (y[0] + 1) % 3
        found = self.attacked(ALL[name], network, x, y)
        assert found.success[0]
        assert found.steps[0] == 0
        assert (found.delta[0] == 0).all()
        assert not found.success[1]
        assert found.success[2:].all() or name in ("square", "fgsm")
        dead = TinyNetwork((0 * network.weights[0],), network.biases, "identity")
        found = self.attacked(ALL[name], dead, x)
        assert not found.success.any()
        assert np.isfinite(found.delta[2:]).all()

    def test_bad_settings_of_an_attack_are_told(self) -> None:
        network, x = linear_model(2, seed=10)
        bad: list[tuple[Attack, dict[str, Any], str]] = [
            (attacks.pgd, {"eps": -1.0}, "eps must be finite, 0 or more"),
            (attacks.pgd, {"eps": 1.0, "p": 1}, "p must be 2 or inf"),
            (attacks.apgd, {"eps": 1.0, "loss": "hinge"}, "loss must be one of cross-entropy"),
            (attacks.apgd, {"eps": 1.0, "targeted": True}, "needs y, the class that each"),
            (attacks.ddn, {"gamma": 1.5}, "gamma must be finite, 0 or more and less than 1"),
            (attacks.cw, {"searches": 0}, "searches must be a whole number, 1 or more"),
            (attacks.square, {"eps": 1.0, "steps": 0}, "steps must be a whole number"),
            (attacks.fmn, {"bounds": (1, 0)}, "low < high"),
            (attacks.fmn, {"bounds": (self.array(np.zeros(3)), 1.0)}, "the shape of an example"),
            (attacks.pgd, {"eps": 1.0, "bounds": (-0.1, 0.1)}, "must lie within the bounds, -0.1"),
            (attacks.ddn, {"bounds": (np.full(DEPTH, 9.0), 9.0)}, "low < high everywhere"),
        ]
        for attack, options, message in bad:
            with pytest.raises(InputError, match=message):
                self.attacked(attack, network, x, **options)


class AttackLaws(_Attacks):
    """How far an attack within eps reaches, and what must not matter to any."""

    @pytest.mark.parametrize("name", WITHIN)
    @pytest.mark.parametrize("p", [2, math.inf])
    def test_fools_beyond_the_distance_and_not_before(self, name: str, p: float) -> None:
        network, x = linear_model(10, seed=2)
        distance = exact(network, x, p)
        # Only the last tries each class in turn; the others go for the one that seems most likely.
        far = 1.03 if name == "apgd-t" else 2.0
        eps = float(np.quantile(distance, 0.7))
        assert (distance < eps / far).any()
        assert (distance > eps).any()
        found = self.attacked(WITHIN[name], network, x, eps=eps, p=p)
        assert found.success[distance < eps / far].all()
        assert not found.success[distance > eps].any()
        assert (lengths(found.delta, p) <= eps * (1 + 1e-9)).all()
        fooled = network(found.x).argmax(1) != network(x).argmax(1)
        assert (fooled == found.success).all()

    @pytest.mark.parametrize(
        ("p", "shape"), [(2, (12,)), (math.inf, (3, 2, 2)), (2, (2, 2, 3)), (math.inf, (3, 4))]
    )
    def test_random_search_needs_no_gradient(self, p: float, shape: tuple[int, ...]) -> None:
        network, x = linear_model(3, seed=4)
        distance = exact(network, x, p)
        eps = float(2 * np.median(distance))
        found = self.attacked(
            attacks.square, network, x.reshape(-1, *shape), eps=eps, p=p, steps=400
        )
        assert found.success[distance < eps / 1.9].all()
        assert not found.success[distance > eps].any()
        assert (lengths(found.delta, p) <= eps * (1 + 1e-9)).all()

    @pytest.mark.parametrize("name", ALL)
    def test_neither_batch_nor_order_matters(self, name: str) -> None:
        rng = np.random.default_rng(8)
        network = TinyNetwork.draw(rng, [4, 6, 3], "tanh")
        x = rng.normal(size=(4, 4))
        options = {"eps": 0.3} if name in ("fgsm", "pgd", "apgd", "square") else {}
        whole = self.attacked(ALL[name], network, x, **options)
        turned = self.attacked(ALL[name], network, x[::-1].copy(), **options)
        alone = self.attacked(ALL[name], network, x[1:2], **options)
        # A batch of another size rounds anew, and a walk that turns on whether a point fools may
        # carry a rounding far; 4e-5 was seen of FMN.
        assert np.allclose(whole.x, turned.x[::-1], rtol=0, atol=1e-3)
        assert np.allclose(whole.x[1:2], alone.x, rtol=0, atol=1e-3)
        assert (whole.steps == turned.steps[::-1]).all()

    @pytest.mark.parametrize("name", ALL)
    def test_large_logits_hide_nothing(self, name: str) -> None:
        rng = np.random.default_rng(9)
        network = TinyNetwork.draw(rng, [4, 6, 3], "tanh")
        loud = TinyNetwork(
            (*network.weights[:-1], 1e4 * network.weights[-1]),
            (*network.biases[:-1], 1e4 * network.biases[-1]),
            "tanh",
        )
        x = rng.normal(size=(6, 4)).astype(np.float32)
        assert self.attacked(ALL[name], loud, x).success.mean() >= 0.5
