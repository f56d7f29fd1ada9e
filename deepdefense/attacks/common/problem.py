"""`open_problem`, with which every attack begins, and `Perturbation`, which every attack returns.

A point *fools* the model if the model does not predict the label there or, in a targeted attack, if
it predicts the class to reach. Attacks work on flat examples [b d]. An attack returns the exact
values at which the model was fooled, because x + delta, computed again, may be rounded differently.
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
from deepdefense.geometry.norms import norm
from deepdefense.geometry.open_call import Call, open_call
from deepdefense.seam.contract import Array, Backend, Forward, Model
from deepdefense.seam.validation import warn_if_probabilities

__all__ = ["Example", "Perturbation", "Problem", "open_problem"]

# A point counts as fooling the model only if the margin exceeds this many machine epsilons times
# the largest absolute logit. The sign of a smaller margin may depend on the size of the batch,
# which affects how the logits are rounded.
LEAST_LEAD_EPSILONS = 64


class Perturbation(NamedTuple):
    """The result of an attack: perturbed examples, their perturbations, and the outcome for each.

    - `x` [b ...]: the perturbed examples.
    - `delta` [b ...]: the perturbed examples minus the original examples.
    - `success` [b]: whether the perturbed example fools the model; False if a logit is not finite.
    - `steps` [b]: the total number of steps of all runs. `superdeepfool` counts rounds instead.
    """

    x: Array
    delta: Array
    success: Array
    steps: Array


class Example(NamedTuple):
    """An example, and the class that the attack is to make it leave or reach."""

    x: Array  # [b d]
    label: Array  # [b], the class to leave or, in a targeted attack, to reach


class Estimate(NamedTuple):
    """The nearest boundary of the network linearised at each example."""

    distance: Array  # [b], the distance to the linearised boundary
    slope: Array  # [b], the dual norm of the boundary's normal
    point: Array  # [b d], the nearest point of the linearised boundary, clipped to the bounds


@dataclass(frozen=True)
class Problem:
    """A model and a batch to attack, as `open_problem` yields them."""

    call: Call
    example: Example
    clean: Array  # [b k], the logits of the unperturbed examples
    targeted: bool  # whether examples are to reach `example.label` instead of leaving it

    @property
    def backend(self) -> Backend:
        """The backend of the model and the examples."""
        return self.call.backend

    @property
    def f(self) -> Forward:
        """The model as a function of flat points: [b d] -> logits [b k]."""
        return self.call.f

    def clip(self, point: Array) -> Array:
        """Return points clipped to the bounds, or unchanged without bounds: [b d] -> [b d]."""
        box = self.call.box
        return point if box is None else box.clip(point)

    def is_fooled(self, logits: Array, label: Array) -> Array:
        """Return a mask [b] of the points with finite logits [b k] that clearly fool the model.

        "Clearly" means that the margin exceeds the rounding error of the logits
        (`LEAST_LEAD_EPSILONS`).
        """
        backend = self.backend
        lead = self.orient(margin(backend, logits, label)).value
        size = reduce(backend.xp.abs(logits), "b k -> b", "max")
        clear = lead > LEAST_LEAD_EPSILONS * backend.epsilon(logits) * size
        return clear & backend.xp.all(backend.xp.isfinite(logits), 1)

    @cached_property
    def is_done(self) -> Array:
        """A mask [b] of the examples that fool the model without a perturbation."""
        xp, label = self.backend.xp, self.example.label
        hit = xp.argmax(self.clean, 1) == label
        return (hit if self.targeted else ~hit) & xp.all(xp.isfinite(self.clean), 1)

    @cached_property
    def is_open(self) -> Array:
        """A mask [b] of the examples with finite input and logits for which `is_done` is False."""
        xp = self.backend.xp
        finite = xp.all(xp.isfinite(self.example.x), 1) & xp.all(xp.isfinite(self.clean), 1)
        return finite & ~self.is_done

    def orient(self, loss: Loss) -> Loss:
        """Return the loss that the attack maximises: `loss` or, in a targeted attack, -`loss`."""
        return Loss(-loss.value, -loss.cotangent) if self.targeted else loss

    def find_ascent(
        self, point: Array, loss: Callable[[Array], Loss]
    ) -> tuple[Array, Array, Array]:
        """Return logits [b k], the loss to maximise [b] and its gradient [b d] at points [b d].

        A gradient that is not finite is replaced by 0. All results are detached.
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
        """Return the nearest point [b d] so far that fooled the model, and its distance [b].

        Where `point` fooled the model at a `distance` below `nearest`, return `point` and
        `distance`; elsewhere return `best` and `nearest`.
        """
        xp = self.backend.xp
        better = fooled & (distance < nearest)
        return (
            xp.where(rearrange(better, "b -> b 1"), point, best),
            xp.where(better, distance, nearest),
        )

    def estimate_distance(self, p: float, candidates: int = 10) -> Estimate:
        """Estimate the distance to the boundary by linearising the network at the examples.

        In an untargeted attack, the boundary is the nearest of those between the label and the
        `candidates` classes with the highest logits. In a targeted attack, it is the one between
        the class to reach and the class with the highest logit among the others.

        Attacks measure lengths in units of this distance, so that their results do not depend on
        the units of the inputs. For an example without a boundary, the distance is a tenth of
        ||x||_p, or 0.1 for x = 0.
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
        """Return points [b d] as a `Perturbation`, with delta 0 for examples not in `is_open`."""
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
    """Check the arguments and yield a `Problem`, with the model in inference mode in the block.

    If y is None, every example is to leave its predicted class.

    Raises:
        InputError: an argument has the wrong shape, type or framework, or the attack is targeted
            and y is None.
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
