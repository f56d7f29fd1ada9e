"""Deep Defense (Yan, Guo, Zhang, NeurIPS 2018): a penalty on small DeepFool perturbations."""

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
from deepdefense.geometry.distance import chord_distance, implicit_distance, unrolled_distance
from deepdefense.geometry.nearest_point import find_nearest_point
from deepdefense.geometry.norms import norm
from deepdefense.geometry.open_call import open_call
from deepdefense.geometry.search import SearchResult, SearchSettings, search_boundary
from deepdefense.seam.contract import Array, Backend, Forward, Model
from deepdefense.seam.settings import (
    document_settings,
    norm_order,
    one_of,
    real_number,
    setting,
    whole_number,
)
from deepdefense.seam.training_contract import Losses

__all__ = ["FAST", "GRADIENTS", "DeepDefense", "Terms", "penalty_from_rho"]

GRADIENTS = ("unrolled", "implicit", "chord")

# Above this exponent, the penalty of a misclassified example is linear in rho, because exp(d rho)
# would overflow float32 at d rho = 89.
LARGEST_EXPONENT = 10.0

# The settings of `DeepDefense.fast` and of the command line's --fast.
FAST: Mapping[str, Any] = {"gradient": "chord", "candidates": 2, "steps": 1}


class Terms(NamedTuple):
    """The penalty of each example and its intermediate values; `DeepDefense.terms` returns it.

    Only `penalty` and `rho` are differentiable in the model's parameters.
    """

    penalty: Array  # [b], including the factor lam
    rho: Array  # [b], the norm of the perturbation divided by that of the example
    correct: Array  # [b], whether the model classifies the example correctly
    success: Array  # [b], whether the perturbed example is across the boundary
    steps: Array  # [b], the number of steps of the search
    measured: Array
    """[b], False for an example that has no rho, and whose penalty therefore has no gradient:

    - An example whose input or logits are not finite, or whose input is all zero, has penalty 0.
    - An example for which no boundary was found, because every gradient vanishes, has rho 0.
    """


def penalty_from_rho(
    backend: Backend, rho: Array, correct: Array, *, lam: Any, c: Any, d: Any
) -> Array:
    """Return the penalty of each example: rho [b], correct [b] -> [b].

        penalty = lam exp(-c rho)   for a correctly classified example
        penalty = lam exp(+d rho)   for a misclassified one

    `lam`, `c` and `d` are numbers or scalar arrays.

    To avoid overflow, the second formula is replaced by its tangent where d rho exceeds
    `LARGEST_EXPONENT`.
    """
    xp = backend.xp
    exponent = xp.where(correct, -c * rho, d * rho)
    beyond = exponent - LARGEST_EXPONENT
    excess = xp.where(beyond > 0, beyond, xp.zeros_like(beyond))
    return lam * xp.exp(exponent - excess) * (1 + excess)


@document_settings
@dataclass(frozen=True)
class DeepDefense(Objective):
    """A penalty on small DeepFool perturbations, differentiated through the attack itself.

    DeepFool's search finds a perturbation D for each example x with label y. D leads out of the
    class y for a correctly classified example, and into the class y for a misclassified one. With
    rho = ||D||_p / ||x||_p and the settings lam, c and d,

        penalty = lam exp(-c rho)   for a correctly classified example,
        penalty = lam exp(+d rho)   for a misclassified example.

    The penalty moves boundaries away from correctly classified examples and towards misclassified
    ones. The product c rho should lie between about 1 and 6, and be smaller for a network that
    misclassifies many examples. `calibrate` measures rho and chooses c and d.

    `gradient` selects how the distance to the boundary is differentiated:

    - "unrolled" differentiates every iteration, as the paper does. It needs second derivatives.
    - "implicit" uses the envelope theorem at the boundary point x + r that DeepFool found. Let g be
      the gap, which is the difference of the logits of the two classes that the boundary separates,
      and let ||.||_q be the dual norm of ||.||_p. A change dg of the gap, caused by a change of the
      parameters, changes the distance by d||D|| = -(1 + overshoot) dg(x + r) / ||grad g||_q. This
      needs no second derivatives and costs a fraction of "unrolled".
    - "chord" is an approximation that costs a fraction of "implicit". It replaces DeepFool by
      another search. Each step linearises the boundary at the last iterate, and moves to the point
      of the linearised boundary that is nearest to x. The gap at the last iterate and the slope of
      the last step give an estimate of the distance that remains.

    With `bounds`, the penalty uses the distance to the nearest boundary point within the bounds.
    The examples should lie within the bounds.

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
        """Return the penalty with its cheapest settings: one step towards the runner-up.

        The result is ``DeepDefense(gradient="chord", candidates=2, steps=1)``. `changes` sets other
        settings by name, or replaces these three.

        The distance to the boundary is approximate. It is exact if the network is linear and the
        boundary with the runner-up class is the nearest one. docs/cost.md lists the time that these
        settings save, and the error of the distance.

        >>> DeepDefense.fast(c=12.0).gradient
        'chord'
        """
        return cls(**{**FAST, **changes})

    def __call__(self, model: Model, x: Array, y: Array) -> Array:
        """Return the penalty of each example, including the factor lam: x [b ...], y [b] -> [b]."""
        return self.terms(model, x, y).penalty

    def losses(
        self, backend: Backend, forward: Forward, model: Model, x: Array, y: Array, *points: Array
    ) -> Losses:
        """Return the `Losses` of a batch: the mean cross-entropy plus the mean penalty.

        The cross-entropy is computed with the model in training mode, the penalty with the model in
        inference mode. `points` is empty, or one array [3] of lam, c and d that replace the
        settings of these names, so that a compiled loss serves for several values.
        """
        xp, logits = backend.xp, forward(x)
        labels = backend.index(y, logits.shape[1], x)
        entropy = mean_cross_entropy(backend, logits, labels)
        terms = self.terms(model, x, labels, *points)
        penalty = reduce(terms.penalty, "b ->", "mean")
        zeros = xp.zeros_like(terms.penalty)
        unfinished = reduce(xp.where(terms.success, zeros, zeros + 1), "b ->", "mean")
        # The product of one-hot rows with the numbers 0..steps converts the integer step counts to
        # floats in every framework.
        numbers = backend.asarray([float(number) for number in range(self.steps + 1)], zeros)
        one_hot = backend.one_hot(terms.steps, self.steps + 1, zeros)
        iterations = einsum(one_hot, numbers, "b t, t -> b")
        return Losses(
            entropy + penalty, entropy, penalty, unfinished, reduce(iterations, "b ->", "mean")
        )

    def terms(self, model: Model, x: Array, y: Array, strength: Array | None = None) -> Terms:
        """Return the penalty of each example and its intermediate values: x [b ...], y [b].

        `strength` is an array [3] of lam, c and d, which replace the settings of these names.

        Raises:
            InputError: y is None, or the model, x and y do not fit together.
        """
        # The range of the examples is not checked, because a rounding error of the augmentation may
        # move pixels out of the bounds.
        with open_call(
            model, x, y, bounds=self.bounds, check_examples=False, need_labels=True
        ) as call:
            backend, f, flat = call.backend, call.f, call.x
            xp = backend.xp
            result, correct, finite = self._find_boundary(backend, f, flat, y, call.box)
            # Replace an example that is not finite by zeros. Its penalty is masked out below, but
            # its gradient would be NaN.
            flat = xp.where(rearrange(finite, "b -> b 1"), flat, xp.zeros_like(flat))
            length, success = self._differentiate_length(backend, f, flat, result)
            distance = (1 + self.overshoot) * length

        scale = norm(backend, flat, self.p)
        rho = divide(backend, distance, scale, where=scale != 0)
        lam, c, d = (
            (self.lam, self.c, self.d) if strength is None else (strength[i] for i in range(3))
        )
        penalty = penalty_from_rho(backend, rho, correct, lam=lam, c=c, d=d)
        counts = finite & (scale > 0)
        if self.unfinished == "drop":
            counts = counts & success
        return Terms(
            penalty=xp.where(counts, penalty, xp.zeros_like(penalty)),
            rho=rho,
            correct=correct,
            success=success,
            steps=result.steps,
            measured=finite & (scale > 0) & (result.steps > 0),
        )

    def _find_boundary(
        self, backend: Backend, f: Forward, x: Array, y: Array, box: Box | None
    ) -> tuple[SearchResult, Array, Array]:
        """Search for the boundary, and return the search result and two masks [b].

        The masks say which examples are correctly classified, and which have finite input and
        logits.
        """
        settings = SearchSettings(self.p, self.steps, self.overshoot, self.candidates)
        if self.gradient == "chord":
            return find_nearest_point(backend, f, x, y, settings, box=box)
        return search_boundary(backend, f, x, y, settings, reach=True)

    def _differentiate_length(
        self, backend: Backend, f: Forward, x: Array, result: SearchResult
    ) -> tuple[Array, Array]:
        """Return the length [b] of each perturbation, differentiable and without overshoot.

        Also return a mask [b] of the examples whose perturbation with overshoot crosses the
        boundary.
        """
        if self.gradient == "unrolled":
            length = unrolled_distance(backend, f, x, result, p=self.p, steps=self.steps)
            return length, result.success
        if self.gradient == "implicit":
            return implicit_distance(backend, f, x, result, p=self.p), result.success
        return chord_distance(backend, f, x, result, overshoot=self.overshoot)
