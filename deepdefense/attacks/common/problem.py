"""The problem that every attack opens, and the perturbation that it returns.

A point *fools* the model if its prediction is not the label or, in a targeted attack, is the class
to reach. Attacks run on flat examples [b d]. A point that fools is returned exactly as it was
tried.
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

# A point fools only if its logits lead by this many machine epsilons of the largest one: rounding
# differs with the size of the batch.
LEAST_LEAD_EPSILONS = 64


class Perturbation(NamedTuple):
    """Perturbed examples, their perturbations, and the outcome of the attack on each.

    `x` and `delta` [b ...]: the perturbed example and its difference from the original; `success`
    [b]: the perturbed example fools the model (never without a finite prediction); `steps` [b]: how
    often the attack moved the example, as that attack counts steps.
    """

    x: Array
    delta: Array
    success: Array
    steps: Array


class Example(NamedTuple):
    """The constants of an attack, per example."""

    x: Array  # [b d]
    label: Array  # [b], the class to leave or, in a targeted attack, to reach


class Estimate(NamedTuple):
    """The distance to the boundary, by linearising the network at the example."""

    distance: Array  # [b]
    slope: Array  # [b], the dual norm of the normal
    point: Array  # [b d], the nearest point of the linearised boundary


@dataclass(frozen=True)
class Problem:
    """A batch to attack."""

    call: Call
    example: Example
    clean: Array  # [b k], the logits of the unperturbed examples
    targeted: bool

    @property
    def backend(self) -> Backend:
        """The backend of the model and the examples."""
        return self.call.backend

    @property
    def f(self) -> Forward:
        """The model over flat points: [b d] -> logits [b k]."""
        return self.call.f

    def clip(self, point: Array) -> Array:
        """Return the nearest point within the bounds, if there are any: [b d] -> [b d]."""
        box = self.call.box
        return point if box is None else box.clip(point)

    def is_fooled(self, logits: Array, label: Array) -> Array:
        """Return where logits [b k] are finite and fool the model by more than rounding: [b].

        Otherwise a point on the boundary would fool in one batch and not in another.
        """
        backend = self.backend
        lead = self.orient(margin(backend, logits, label)).value
        size = reduce(backend.xp.abs(logits), "b k -> b", "max")
        clear = lead > LEAST_LEAD_EPSILONS * backend.epsilon(logits) * size
        return clear & backend.xp.all(backend.xp.isfinite(logits), 1)

    @cached_property
    def is_done(self) -> Array:
        """Where the unperturbed example already fools the model: [b]."""
        xp, label = self.backend.xp, self.example.label
        hit = xp.argmax(self.clean, 1) == label
        return (hit if self.targeted else ~hit) & xp.all(xp.isfinite(self.clean), 1)

    @cached_property
    def is_open(self) -> Array:
        """Where the example must move, and it and its logits are finite: [b]."""
        xp = self.backend.xp
        finite = xp.all(xp.isfinite(self.example.x), 1) & xp.all(xp.isfinite(self.clean), 1)
        return finite & ~self.is_done

    def orient(self, loss: Loss) -> Loss:
        """Return the loss that this attack maximises: negative in a targeted attack."""
        return Loss(-loss.value, -loss.cotangent) if self.targeted else loss

    def find_ascent(
        self, point: Array, loss: Callable[[Array], Loss]
    ) -> tuple[Array, Array, Array]:
        """Return logits [b k], the loss to maximise [b] and its gradient at a point [b d].

        The gradient is 0 where it is not finite. All are constants.
        """
        xp = self.backend.xp
        logits, value, gradient = loss_gradient(
            self.backend, self.f, point, lambda logits: self.orient(loss(logits))
        )
        finite = rearrange(xp.all(xp.isfinite(gradient), 1), "b -> b 1")
        return logits, value, xp.where(finite, gradient, xp.zeros_like(gradient))

    def keep_nearest(
        self, best: Array, nearest: Array, point: Array, distance: Array, fooled: Array
    ) -> tuple[Array, Array]:
        """Return the best point [b d] and its distance [b], after one more point was tried.

        The new point replaces the best one where it fools and is nearer.
        """
        xp = self.backend.xp
        better = fooled & (distance < nearest)
        return (
            xp.where(rearrange(better, "b -> b 1"), point, best),
            xp.where(better, distance, nearest),
        )

    def estimate_distance(self, p: float, candidates: int = 10) -> Estimate:
        """Estimate the distance to the boundary by linearising the network at the examples.

        Untargeted, the boundary is the nearest of those with the `candidates` highest logits. The
        nearest need not be the runner-up's, and an attack that starts towards the wrong class
        seldom finds the right one. Targeted, it is the boundary with the highest other class.

        Attacks take the distance as their unit of length, so that they do not depend on the units
        of the inputs. Where no boundary exists, it is a tenth of ||x||_p, or 0.1 for x = 0.
        """
        backend, (x, label) = self.backend, self.example
        xp, depth = backend.xp, self.clean.shape[1]
        logits, fold = backend.class_gradients(self.f, x)
        if self.targeted:
            cotangent = self.orient(margin(backend, logits, label)).cotangent
            contrasts = rearrange(cotangent, "b k -> b 1 k")
        else:
            ranked = backend.rank(logits, min(candidates, depth))
            contrasts = gap_cotangent(backend, ranked[:, 1:], rearrange(label, "b -> b 1"), logits)
        nearest = find_nearest_boundary(backend, x, logits, fold, contrasts, p)
        no_least_step = xp.zeros_like(nearest.gap)
        step, slope = find_boundary_step(backend, nearest.gap, nearest.normal, p, no_least_step)
        size = norm(backend, x, p)
        fallback = 0.1 * xp.where(size > 0, size, xp.ones_like(size))
        distance = norm(backend, step, p)
        usable = (distance > 0) & xp.isfinite(distance)
        return Estimate(
            distance=xp.where(usable, distance, fallback),
            slope=slope,
            point=self.clip(x + xp.where(rearrange(usable, "b -> b 1"), step, 0 * x)),
        )

    def make_result(self, point: Array, fooled: Array, steps: Array) -> Perturbation:
        """Return points [b d] as a `Perturbation`; examples that are not open stay as they are."""
        xp, x = self.backend.xp, self.example.x
        perturbed = xp.where(rearrange(self.is_open, "b -> b 1"), point, x)
        return Perturbation(
            self.call.unflatten(perturbed),
            self.call.unflatten(perturbed - x),
            self.is_done | (fooled & self.is_open),
            steps,
        )


@contextmanager
def open_problem(
    model: Model, x: Array, y: Array | None, *, targeted: bool, bounds: Bounds | None
) -> Iterator[Problem]:
    """Yield the `Problem`; the model is in inference mode until the context closes.

    Without y, the class to leave is the predicted one.

    Raises:
        InputError: an argument is of the wrong shape, type or framework, or a targeted attack has
            no class to reach.
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
