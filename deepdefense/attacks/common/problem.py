"""What every attack is given and gives back, checked and laid out once.

An example is *fooled* where its prediction is not its label or, in a targeted attack, is the class
asked for. Attacks run on flat examples [b d]; a point that fooled is returned as it was tried.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from einops import rearrange, reduce

from deepdefense.attacks.common.losses import Loss, loss_gradient, margin
from deepdefense.errors import InputError
from deepdefense.geometry.boundary import (
    find_boundary_step,
    find_nearest_boundary,
    gap_cotangent,
)
from deepdefense.geometry.bounds import Bounds
from deepdefense.geometry.call import Call, open_call
from deepdefense.geometry.norms import norm
from deepdefense.seam.contract import Array, Backend, Forward, Model
from deepdefense.seam.validation import warn_if_probabilities

__all__ = ["Example", "Perturbation", "Problem", "open_problem"]

# What fools leads by this many roundings of the largest logit: a batch of another size rounds anew.
CLEARANCE = 64


class Perturbation(NamedTuple):
    """Perturbed examples, what was added to each, and how its search went.

    `x` and `delta` [b ...]: the perturbed example and its difference to the original; `success`
    [b]: the example is fooled (one without a finite prediction never is); `steps` [b]: how often
    the attack moved it, by its own count.
    """

    x: Array
    delta: Array
    success: Array
    steps: Array


class Example(NamedTuple):
    """What stays fixed for an example: itself [b d], and the class [b] it is to leave or reach."""

    x: Array
    label: Array


class Estimate(NamedTuple):
    """Of the way to the boundary, by a linear model of the network at the example.

    `unit` [b], the distance; `slope` [b], the dual norm of the normal; `point` [b d], on it.
    """

    unit: Array
    slope: Array
    point: Array


@dataclass(frozen=True)
class Problem:
    """A batch to attack."""

    call: Call
    example: Example
    clean: Array  # logits [b k] of the examples themselves
    targeted: bool

    @property
    def backend(self) -> Backend:
        """The backend of the call."""
        return self.call.backend

    @property
    def f(self) -> Forward:
        """The model over flat points: [b d] -> logits [b k]."""
        return self.call.f

    def clip(self, point: Array) -> Array:
        """The point [b d] itself, or the nearest one within the bounds if there are any."""
        box = self.call.box
        return point if box is None else box.clip(point)

    def is_fooled(self, logits: Array, label: Array) -> Array:
        """Where finite logits [b k] decide as the attack wants, by more than rounding: [b].

        A point on the boundary would be fooled in one batch, and not in another.
        """
        backend = self.backend
        lead = self.orient(margin(backend, logits, label)).value
        size = reduce(backend.xp.abs(logits), "b k -> b", "max")
        clear = lead > CLEARANCE * backend.epsilon(logits) * size
        return clear & backend.xp.all(backend.xp.isfinite(logits), 1)

    @cached_property
    def is_done(self) -> Array:
        """Where there is nothing to do: [b]."""
        xp, label = self.backend.xp, self.example.label
        hit = xp.argmax(self.clean, 1) == label
        return (hit if self.targeted else ~hit) & xp.all(xp.isfinite(self.clean), 1)

    @cached_property
    def is_open(self) -> Array:
        """Where there is something to do, and the example and its logits are finite: [b]."""
        xp = self.backend.xp
        finite = xp.all(xp.isfinite(self.example.x), 1) & xp.all(xp.isfinite(self.clean), 1)
        return finite & ~self.is_done

    def orient(self, loss: Loss) -> Loss:
        """The loss as this attack drives it: up to leave the label, down to reach it."""
        return Loss(-loss.value, -loss.cotangent) if self.targeted else loss

    def find_ascent(
        self, point: Array, loss: Callable[[Array], Loss]
    ) -> tuple[Array, Array, Array]:
        """Logits [b k], what is driven up [b], and its gradient at a point: [b d] -> [b d].

        The gradient is 0 where it is not finite. All are constants.
        """
        xp = self.backend.xp
        logits, value, slope = loss_gradient(
            self.backend, self.f, point, lambda logits: self.orient(loss(logits))
        )
        finite = rearrange(xp.all(xp.isfinite(slope), 1), "b -> b 1")
        return logits, value, xp.where(finite, slope, xp.zeros_like(slope))

    def keep_nearest(
        self, best: Array, nearest: Array, point: Array, distance: Array, fooled: Array
    ) -> tuple[Array, Array]:
        """The nearest point that fooled [b d] and its distance [b], now that one more is tried."""
        xp = self.backend.xp
        better = fooled & (distance < nearest)
        return (
            xp.where(rearrange(better, "b -> b 1"), point, best),
            xp.where(better, distance, nearest),
        )

    def estimate_distance(self, p: float, candidates: int = 10) -> Estimate:
        """Where the network, linearised at the examples, would cross: `Estimate`.

        Untargeted, it is the nearest boundary of those with the `candidates` highest logits; the
        runner-up's need not be it, and a walk that sets out for the wrong class seldom comes back.
        Targeted, it is the one with the highest other class. Its distance is the unit of length of
        attacks that know nothing of the inputs' units. Where there is none: a tenth of ||x||_p,
        or 0.1 for x = 0.
        """
        backend, (x, label) = self.backend, self.example
        xp, depth = backend.xp, self.clean.shape[1]
        logits, fold = backend.class_gradients(self.f, x)
        if self.targeted:
            contrasts = rearrange(
                self.orient(margin(backend, logits, label)).cotangent, "b k -> b 1 k"
            )
        else:
            ranked = backend.rank(logits, min(candidates, depth))
            contrasts = gap_cotangent(backend, ranked[:, 1:], rearrange(label, "b -> b 1"), logits)
        near = find_nearest_boundary(backend, x, logits, fold, contrasts, p)
        shortest = xp.zeros_like(near.gap)
        move, slope = find_boundary_step(backend, near.gap, near.normal, p, shortest)
        size = norm(backend, x, p)
        fallback = 0.1 * xp.where(size > 0, size, xp.ones_like(size))
        distance = norm(backend, move, p)
        usable = (distance > 0) & xp.isfinite(distance)
        return Estimate(
            unit=xp.where(usable, distance, fallback),
            slope=slope,
            point=self.clip(x + xp.where(rearrange(usable, "b -> b 1"), move, 0 * x)),
        )

    def make_result(self, point: Array, found: Array, steps: Array) -> Perturbation:
        """The examples [b d], moved where there was something to do, in their own shape."""
        xp, x = self.backend.xp, self.example.x
        moved = rearrange(self.is_open, "b -> b 1")
        perturbed = xp.where(moved, point, x)
        return Perturbation(
            self.call.unflatten(perturbed),
            self.call.unflatten(perturbed - x),
            self.is_done | (found & self.is_open),
            steps,
        )


@contextmanager
def open_problem(
    model: Model, x: Array, y: Array | None, *, targeted: bool, bounds: Bounds | None
) -> Iterator[Problem]:
    """The problem, while the model is in inference mode.

    `y` None: leave the predicted class. Raises `InputError` for arguments of the wrong shape, type
    or framework, and for a targeted attack without the class to reach.
    """
    with open_call(model, x, y, bounds=bounds) as call:
        if targeted and y is None:
            raise InputError("a targeted attack needs y, the class that each example is to reach")
        backend = call.backend
        clean = backend.forward(call.f, call.x)
        warn_if_probabilities(backend, clean)
        predicted = backend.xp.argmax(clean, 1)
        label = predicted if y is None else backend.index(y, clean.shape[1], x)
        yield Problem(call=call, example=Example(call.x, label), clean=clean, targeted=targeted)
