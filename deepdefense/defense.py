"""Deep Defense (Yan, Guo, Zhang, NeurIPS 2018): train against the attack's own perturbation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

from einops import rearrange, reduce

from deepdefense.attacks.deepfool import (
    Search,
    boundary_step,
    contrast,
    flatten,
    search,
    shortest_step,
)
from deepdefense.backend import Array, Backend, Forward, Model, backend_of
from deepdefense.checks import (
    check_choice,
    check_count,
    check_labels,
    check_logits,
    check_number,
    check_order,
)
from deepdefense.metrics import ratio
from deepdefense.norms import dual, norm

__all__ = ["DeepDefense", "Terms"]

# Beyond this exponent the penalty of a wrong example goes on along its tangent: d * rho = 10 is a
# perturbation of twice the input's own norm (d = 5), and exp(89) overflows float32.
LARGEST_EXPONENT = 10.0


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


class _Replay(NamedTuple):
    shift: Array  # [b d], differentiable
    step: Array  # [b], how many were replayed


class _Walk(NamedTuple):
    x: Array  # [b d]
    steps: Array  # [b], how many to replay
    bases: Array  # [b t]
    targets: Array  # [b t]
    shortest: Array  # [b]


@dataclass(frozen=True)
class DeepDefense:
    """A penalty on small DeepFool perturbations, differentiated through the attack itself.

    With D the perturbation that `deepfool` finds for x, and rho = ||D||_p / ||x||_p,

        penalty = lam exp(-c rho)   for a rightly classified example, whose D leads away from y,
        penalty = lam exp(+d rho)   for a misclassified one, whose D leads to y.

    Added to the cross-entropy it drives boundaries away from right examples and towards wrong ones.
    c rho should be of order 1 to 6, so c grows as the data's typical rho shrinks.

    Args:
        lam: weight of the penalty against the mean cross-entropy.
        c: steepness for right examples.
        d: steepness for wrong examples.
        p: order of the norm, from 1 to inf.
        steps: the most DeepFool iterations.
        overshoot: DeepFool's overshoot.
        candidates: classes considered, the base class included; all others are ignored.
        gradient: "unrolled" differentiates every iteration, as the paper does (needs second
            derivatives); "implicit" takes the envelope theorem at the boundary point found,
            d||D|| = -(1 + overshoot) dg(x + r) / ||grad g||_q, at a fraction of the cost (no second
            derivatives). Where one step reaches the boundary of a linear network, they are equal.
        unfinished: an example that is not across after `steps` enters with its partial
            perturbation ("keep"), or not at all ("drop").

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

    lam: float = 15.0
    c: float = 25.0
    d: float = 5.0
    p: float = 2.0
    steps: int = 5
    overshoot: float = 0.02
    candidates: int = 10
    gradient: Literal["unrolled", "implicit"] = "unrolled"
    unfinished: Literal["keep", "drop"] = "keep"

    def __post_init__(self) -> None:
        for name in ("lam", "c", "d", "overshoot"):
            check_number(name, getattr(self, name), least=0)
        check_order(self.p)
        check_count("steps", self.steps, least=1)
        check_count("candidates", self.candidates, least=2)
        check_choice("gradient", self.gradient, ("unrolled", "implicit"))
        check_choice("unfinished", self.unfinished, ("keep", "drop"))

    def __call__(self, model: Model, x: Array, y: Array) -> Array:
        """The penalty of each example, lam included: [b ...], [b] -> [b]."""
        return self.terms(model, x, y).penalty

    def objective(self, model: Model, x: Array, y: Array) -> Array:
        """Mean cross-entropy of the model as it stands, plus mean penalty: a scalar."""
        backend = backend_of(x, model=model, labels=y)
        check_labels(y, x)
        logits = model(x)
        check_logits(logits, x)
        labels = backend.index(y, logits.shape[1], x)
        losses = backend.softmax_cross_entropy(logits, labels)
        return reduce(losses, "b ->", "mean") + reduce(self(model, x, y), "b ->", "mean")

    def terms(self, model: Model, x: Array, y: Array) -> Terms:
        """The penalty with all that it is made of, per example."""
        backend = backend_of(x, model=model, labels=y)
        check_labels(y, x)
        xp = backend.xp
        with backend.inference(model) as f:
            f, flat = flatten(backend, f, x)
            flat = backend.stop_gradient(flat)
            found, correct, finite = search(
                backend,
                f,
                flat,
                y,
                p=self.p,
                steps=self.steps,
                overshoot=self.overshoot,
                candidates=self.candidates,
                reach=True,
            )
            # An example without a prediction would put NaN in the gradient even when masked out.
            flat = xp.where(rearrange(finite, "b -> b 1"), flat, xp.zeros_like(flat))
            length = self._unrolled if self.gradient == "unrolled" else self._implicit
            distance = (1 + self.overshoot) * length(backend, f, flat, found)

        scale = norm(backend, flat, self.p)
        rho = ratio(backend, distance, scale)
        exponent = xp.where(correct, -self.c * rho, self.d * rho)
        beyond = exponent - LARGEST_EXPONENT
        excess = xp.where(beyond > 0, beyond, xp.zeros_like(beyond))
        penalty = self.lam * xp.exp(exponent - excess) * (1 + excess)
        counted = finite & (scale > 0)
        if self.unfinished == "drop":
            counted = counted & found.success
        return Terms(
            penalty=xp.where(counted, penalty, xp.zeros_like(penalty)),
            rho=rho,
            correct=correct,
            success=found.success,
            steps=found.steps,
            measured=finite & (scale > 0) & (found.steps > 0),
        )

    def _unrolled(self, backend: Backend, f: Forward, x: Array, found: Search) -> Array:
        """||sum of the steps||_p, each step a function of the parameters: [b].

        The search has chosen the classes without a graph. Only the chosen gap and normal of each
        step are replayed with one: the same value and gradient, at a fraction of the cost.
        """

        def step(state: _Replay, walk: _Walk) -> tuple[_Replay, Array]:
            logits, pull = backend.vjp(f, walk.x + state.shift)
            direction = _chosen(backend, walk.bases, walk.targets, state.step, logits)
            # Without a step to take, a zero direction keeps the example in the graph, at rest.
            due = rearrange(state.step < walk.steps, "b -> b 1")
            direction = backend.xp.where(due, direction, backend.xp.zeros_like(direction))
            gap = reduce(logits * direction, "b k -> b", "sum")
            move, _ = boundary_step(backend, gap, pull(direction), self.p, walk.shortest)
            taken = _Replay(state.shift + move, state.step + 1)
            return taken, taken.step < walk.steps

        replayed = backend.iterate(
            step,
            _Replay(backend.xp.zeros_like(x), backend.xp.zeros_like(found.steps)),
            _Walk(x, found.steps, found.bases, found.targets, shortest_step(backend, x, self.p)),
            found.steps >= 0,
            steps=self.steps,
            differentiable=True,
        )
        return norm(backend, replayed.shift, self.p)

    def _implicit(self, backend: Backend, f: Forward, x: Array, found: Search) -> Array:
        """The distance found, with the gradient of the envelope theorem: [b].

        At b = x + r held fixed, d||r||_p = -dg(b) / ||grad g(b)||_q: one forward and one backward
        pass, no second derivative.
        """
        xp = backend.xp
        logits, pull = backend.vjp(f, x + found.shift, twice=False)
        last = xp.maximum(found.steps - 1, xp.zeros_like(found.steps))
        direction = _chosen(backend, found.bases, found.targets, last, logits)
        gap = reduce(logits * direction, "b k -> b", "sum")
        slope = norm(backend, pull(direction), dual(self.p))
        moves = (found.steps > 0) & (slope > 0) & xp.isfinite(slope)
        nearer = (gap - backend.stop_gradient(gap)) / xp.where(moves, slope, xp.ones_like(slope))
        distance = norm(backend, found.shift, self.p)
        return distance - xp.where(moves, nearer, xp.zeros_like(nearer))


def _chosen(backend: Backend, bases: Array, targets: Array, step: Array, logits: Array) -> Array:
    """The cotangent of the gap that a given step went for: [b t], [b t], [b] -> [b k]."""
    xp = backend.xp
    slot = backend.one_hot(step, bases.shape[1], logits) > 0
    base, target = (
        reduce(xp.where(slot, trace, xp.zeros_like(trace)), "b t -> b", "sum")
        for trace in (bases, targets)
    )
    return contrast(backend, target, base, logits)
