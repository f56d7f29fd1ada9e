"""Deep Defense (Yan, Guo, Zhang, NeurIPS 2018): train against the attack's own perturbation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from einops import einsum, rearrange, reduce

from deepdefense.defenses.attack_settings import BOUNDS
from deepdefense.defenses.objective import Objective, mean_cross_entropy
from deepdefense.errors import InputError
from deepdefense.geometry.arithmetic import divide
from deepdefense.geometry.bounds import Bounds, Box
from deepdefense.geometry.call import open_call
from deepdefense.geometry.distance import chord_distance, implicit_distance, unrolled_distance
from deepdefense.geometry.nearest_point import find_nearest_point
from deepdefense.geometry.norms import norm
from deepdefense.geometry.search import SearchResult, search_boundary
from deepdefense.seam.compilers import without_autograph
from deepdefense.seam.contract import Array, Backend, Forward, Model
from deepdefense.seam.settings import (
    document_settings,
    norm_order,
    one_of,
    real_number,
    setting,
    whole_number,
)
from deepdefense.seam.training import Losses

__all__ = ["FAST", "GRADIENTS", "DeepDefense", "Terms"]

GRADIENTS = ("unrolled", "implicit", "chord")


# Beyond this exponent the penalty of a wrong example goes on along its tangent: d * rho = 10 is a
# perturbation of twice the input's own norm (d = 5), and exp(89) overflows float32.
LARGEST_EXPONENT = 10.0


# What `DeepDefense.fast` and the command line's --fast set.
FAST: Mapping[str, Any] = {"gradient": "chord", "candidates": 2, "steps": 1}


class Terms(NamedTuple):
    """The penalty of each example [b] and what it is made of.

    `penalty` and `rho` are differentiable in the model's parameters; `correct`, `success` and
    `steps` are constants. `measured` is False for an example that has no rho: one whose input or
    logits are not finite, or whose input is all zero, has penalty 0; one with no boundary in sight
    (every gradient vanishes) has rho 0. In either case its gradient is 0.
    """

    penalty: Array
    rho: Array
    correct: Array
    success: Array
    steps: Array
    measured: Array


@without_autograph
@document_settings
@dataclass(frozen=True)
class DeepDefense(Objective):
    """A penalty on small DeepFool perturbations, differentiated through the attack itself.

    With D the perturbation that `deepfool` finds for x, and rho = ||D||_p / ||x||_p,

        penalty = lam exp(-c rho)   for a rightly classified example, whose D leads away from y,
        penalty = lam exp(+d rho)   for a misclassified one, whose D leads to y.

    Added to the cross-entropy it drives boundaries away from right examples and towards wrong ones.
    c rho should be of order 1 to 6, so c grows as the data's typical rho shrinks; `calibrate`
    measures it. A network that is wrong on a fifth of its data got 0.5 (docs/study.md).

    `gradient` is how the distance is differentiated.

    - "unrolled" differentiates every iteration, as the paper does. It needs second derivatives.
    - "implicit" uses the envelope theorem at the boundary point found,
      d||D|| = -(1 + overshoot) dg(x + r) / ||grad g||_q. It needs no second derivatives and costs a
      fraction. Where one step reaches the boundary of a linear network, the two are equal.
    - "chord" is an approximation that costs a fraction of "implicit", with a search of its own.
      Each of its `steps` goes from x to the nearest point of the last linearisation, without a
      trial; the rest of the way to the boundary is extrapolated by the last slope. See `fast`.

    With `bounds`, the distance is that of the nearest point within them, where an attack on images
    has to stay. Examples should lie within the bounds.

    Raises:
        InputError: a setting out of range.

    >>> import numpy as np
    >>> weight = np.array([[3.0, 4.0], [0.0, 0.0]])
    >>> defense = DeepDefense(lam=1.0, c=1.0, overshoot=0.0)
    >>> x = np.array([[1.0, 0.5]])  # at distance 1 from the boundary, with norm 1.118
    >>> defense(lambda x: x @ weight.T, x, np.array([0])).round(4)  # exp(-1 / 1.118)
    array([0.4088])

    Source: Yan, Guo and Zhang (2018), "Deep Defense: training DNNs with improved adversarial
    robustness". The implicit gradient: cf. Ding et al. (2020), "MMA training".
    """

    lam: float = setting(15.0, "weight of the penalty in the loss", real_number(0))
    c: float = setting(25.0, "steepness for correctly classified examples", real_number(0))
    d: float = setting(5.0, "steepness for misclassified examples", real_number(0))
    p: float = setting(2.0, "order of the norm, from 1 to inf", norm_order)
    steps: int = setting(5, "largest number of DeepFool iterations in training", whole_number(1))
    overshoot: float = setting(0.02, "DeepFool's overshoot", real_number(0), option=False)
    candidates: int = setting(
        10, "number of classes considered, including the base class", whole_number(2)
    )
    gradient: Literal["unrolled", "implicit", "chord"] = setting(
        "unrolled",
        "differentiate the distance through every iteration (unrolled), by the envelope theorem "
        "(implicit), or along a chord (chord)",
        one_of(*GRADIENTS),
    )
    unfinished: Literal["keep", "drop"] = setting(
        "keep",
        "an example that is not across the boundary after all steps counts with its partial "
        "perturbation (keep), or not at all (drop)",
        one_of("keep", "drop"),
        option=False,
    )
    bounds: Bounds | None = setting(
        None,
        f"{BOUNDS[0]}; for gradient chord and p > 1",
        BOUNDS[1],
        unset="no bounds",
        option=False,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.bounds is not None and not (self.gradient == "chord" and self.p > 1):
            raise InputError(
                'bounds go with the gradient "chord" and p > 1, where the shortest way within them '
                "is found: DeepDefense.fast(bounds=...), --fast --bounded; "
                f"got gradient {self.gradient!r}, p {self.p:g}"
            )

    @classmethod
    def fast(cls, **changes: Any) -> DeepDefense:
        """The penalty at the least cost: one step towards the runner-up, the rest by the chord.

        ``DeepDefense(gradient="chord", candidates=2, steps=1)``, and any other setting by name. A
        step of training then takes about three plain ones, instead of ten and more. The distance
        is an approximation, exact on linear networks whose runner-up is the nearest class; what it
        saves and what comes of it is measured in docs/cost.md. More `steps` come nearer to the
        nearest point, which DeepFool passes by, at two thirds of a plain step each.

        >>> DeepDefense.fast(c=12.0).gradient
        'chord'
        """
        return cls(**{**FAST, **changes})

    def __call__(self, model: Model, x: Array, y: Array) -> Array:
        """The penalty of each example, lam included: [b ...], [b] -> [b]."""
        return self.terms(model, x, y).penalty

    def losses(
        self, backend: Backend, forward: Forward, model: Model, x: Array, y: Array, *points: Array
    ) -> Losses:
        """The mean cross-entropy of the model as it trains, and the mean penalty."""
        xp, logits = backend.xp, forward(x)
        labels = backend.index(y, logits.shape[1], x)
        entropy = mean_cross_entropy(backend, logits, labels)
        terms = self.terms(model, x, labels)
        penalty = reduce(terms.penalty, "b ->", "mean")
        zeros = xp.zeros_like(terms.penalty)
        failed = reduce(xp.where(terms.success, zeros, zeros + 1), "b ->", "mean")
        numbers = backend.asarray([float(number) for number in range(self.steps + 1)], zeros)
        taken = backend.one_hot(terms.steps, self.steps + 1, zeros)
        iterations = einsum(taken, numbers, "b t, t -> b")
        return Losses(
            entropy + penalty, entropy, penalty, failed, reduce(iterations, "b ->", "mean")
        )

    @without_autograph
    def terms(self, model: Model, x: Array, y: Array) -> Terms:
        """The penalty with all that it is made of, per example."""
        # Rounding may move augmented examples out of the bounds, so their range is not checked.
        with open_call(model, x, y, bounds=self.bounds, check_examples=False) as call:
            backend, f, flat = call.backend, call.f, call.x
            xp = backend.xp
            found, correct, finite = self._search(backend, f, flat, y, call.box)
            # An example without a prediction would put NaN in the gradient even when masked out.
            flat = xp.where(rearrange(finite, "b -> b 1"), flat, xp.zeros_like(flat))
            length, success = self._length(backend, f, flat, found)
            distance = (1 + self.overshoot) * length

        scale = norm(backend, flat, self.p)
        rho = divide(backend, distance, scale, where=scale != 0)
        exponent = xp.where(correct, -self.c * rho, self.d * rho)
        beyond = exponent - LARGEST_EXPONENT
        excess = xp.where(beyond > 0, beyond, xp.zeros_like(beyond))
        penalty = self.lam * xp.exp(exponent - excess) * (1 + excess)
        counted = finite & (scale > 0)
        if self.unfinished == "drop":
            counted = counted & success
        return Terms(
            penalty=xp.where(counted, penalty, xp.zeros_like(penalty)),
            rho=rho,
            correct=correct,
            success=success,
            steps=found.steps,
            measured=finite & (scale > 0) & (found.steps > 0),
        )

    def _search(
        self, backend: Backend, f: Forward, x: Array, y: Array, box: Box | None
    ) -> tuple[SearchResult, Array, Array]:
        settings: dict[str, Any] = {
            "p": self.p,
            "steps": self.steps,
            "overshoot": self.overshoot,
            "candidates": self.candidates,
        }
        if self.gradient == "chord":
            return find_nearest_point(backend, f, x, y, box=box, **settings)
        return search_boundary(backend, f, x, y, reach=True, **settings)

    def _length(
        self, backend: Backend, f: Forward, x: Array, found: SearchResult
    ) -> tuple[Array, Array]:
        """The length [b] of what was found, differentiable, and whether it is across [b]."""
        if self.gradient == "unrolled":
            length = unrolled_distance(backend, f, x, found, p=self.p, steps=self.steps)
            return length, found.success
        if self.gradient == "implicit":
            return implicit_distance(backend, f, x, found, p=self.p), found.success
        return chord_distance(backend, f, x, found, overshoot=self.overshoot)
