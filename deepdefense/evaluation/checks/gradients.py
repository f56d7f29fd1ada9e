"""Checks that the input gradients, which attacks use, exist and are correct.

The margin of an example x with label y is (max_{k != y} f_k) - f_y, where f_k is the logit of class
k. The predicted slope of the margin along a unit vector u is <gradient, u>. The measured slope is
the central difference (margin(x + h u) - margin(x - h u)) / (2 h), where h is the step length.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from einops import einsum, rearrange, reduce

from deepdefense.attacks.common.losses import log_odds, loss_gradient, margin
from deepdefense.evaluation.checks.check import Check, as_percent, grade, make_check
from deepdefense.evaluation.subject import HostArray, Subject
from deepdefense.geometry.arithmetic import divide
from deepdefense.geometry.norms import norm, steepest_direction
from deepdefense.geometry.open_call import flatten_inputs
from deepdefense.seam.contract import Array

__all__ = ["check_input_gradients", "check_second_derivative"]

# A check fails if more than this share of the examples has a gradient that is 0 or not finite.
MOST_BAD_GRADIENTS = 0.05
# The step length along the gradient, as a fraction of the distance to the linearised decision
# boundary.
DIFFERENCE_STEP = 0.02
# Steps in random directions are this many times as long as steps along the gradient, because the
# slopes are smaller there and rounding would hide the change of the margin.
RANDOM_STEP = 5
# The largest acceptable relative error of a slope along the gradient. Even a correct gradient has
# an error, because the network is not linear.
MOST_ERROR = 0.1
# The largest acceptable result of `_random_slope_error`.
MOST_RANDOM_ERROR = 0.5


@dataclass(frozen=True, eq=False)
class _InputGradients:
    """The margin max_{k != y} f_k - f_y at b examples, and its gradient with respect to x."""

    subject: Subject
    margin: Callable[[Array], Array]  # computes the margin: flattened inputs [b d] -> [b]
    x: Array  # the examples, flattened [b d]
    gap: Array  # the margin at x [b]
    finite: Array  # a mask [b] of the examples at which the gradient is finite
    gradient: Array  # the gradient at x [b d], replaced by 0 where it is not finite
    norm: Array  # the 2-norm of the gradient [b]
    direction: Array  # the gradient divided by its 2-norm [b d]
    random: Array  # random unit vectors [b d]

    @property
    def zero(self) -> Array:
        """A mask [b] of the examples at which the gradient is 0 or not finite."""
        return self.norm == 0


def check_input_gradients(few: Subject) -> tuple[Check, ...]:
    """Check that the margin's input gradients are finite, not zero, and correct.

    Return one check for each of these three properties.
    """
    gradients = _compute_input_gradients(few)
    to_numpy = few.backend.to_numpy
    broken = 1 - float(to_numpy(gradients.finite).mean())
    zero = float(to_numpy(gradients.zero & gradients.finite).mean())
    return (
        make_check(
            "gradients finite",
            grade(broken, 0, MOST_BAD_GRADIENTS),
            f"{as_percent(broken)} of the input gradients are NaN or infinite",
            "Look for a square root, a logarithm or a division at 0 in the model.",
        ),
        make_check(
            "gradients present",
            grade(zero, 0, MOST_BAD_GRADIENTS),
            f"on {as_percent(zero)} of the examples the input gradient is exactly 0",
            "Something in the model has no gradient (rounding, a threshold, a detached or "
            "saturated part): attack it through a smooth stand-in, or by gradient-free attacks.",
        ),
        _check_slopes(gradients),
    )


def _compute_input_gradients(few: Subject) -> _InputGradients:
    backend = few.backend
    xp = backend.xp
    x = few.to_native(few.x)
    label = backend.index(few.y, few.logits.shape[1], x)
    f, flat = flatten_inputs(backend, few.scaled_logits, x)

    def measure_margin(point: Array) -> Array:
        return margin(backend, backend.forward(f, point), label).value

    _, gap, found = loss_gradient(backend, f, flat, lambda logits: margin(backend, logits, label))
    finite = xp.all(xp.isfinite(found), 1)
    gradient = xp.where(rearrange(finite, "b -> b 1"), found, xp.zeros_like(found))
    size, direction = steepest_direction(backend, gradient, 2)
    random = np.random.default_rng(0).normal(size=(len(few.x), flat.shape[1]))
    random = few.to_native((random / np.linalg.norm(random, axis=1)[:, None]).astype(few.x.dtype))
    return _InputGradients(
        few, measure_margin, flat, gap, finite, gradient, size, direction, random
    )


def _check_slopes(gradients: _InputGradients) -> Check:
    errors, length = _slope_errors(gradients)
    wrong = float((errors > MOST_ERROR).mean())
    median = float(np.median(errors))
    at_random = _random_slope_error(gradients, length)
    failed = median > MOST_ERROR or at_random > MOST_RANDOM_ERROR
    return make_check(
        "gradients right",
        "fail" if failed else grade(wrong, 0.25, 0.5),
        f"against central differences the median error of the slope is {as_percent(median)} "
        f"along the gradient, where it is above {as_percent(MOST_ERROR)} on {as_percent(wrong)} of "
        f"the examples, and {as_percent(at_random)} of what is usual in a direction at random",
        "The gradient is not the function's: look for a hand-written backward pass, a detached "
        "part, or an input that is quantised.",
    )


def _slope_errors(gradients: _InputGradients) -> tuple[HostArray, HostArray]:
    """Return the relative errors [b] of the slopes along the gradients, and the step lengths [b].

    The relative error is |predicted - measured| / max(|predicted|, |measured|). Where the gradient
    is 0, the slope along a random unit vector is measured instead.
    """
    backend, zero = gradients.subject.backend, gradients.zero
    xp = backend.xp
    direction = xp.where(rearrange(zero, "b -> b 1"), gradients.random, gradients.direction)
    input_norm = norm(backend, gradients.x, 2)
    distance = divide(backend, xp.abs(gradients.gap), gradients.norm, where=~zero, keep=True)
    limit = 0.1 * xp.where(input_norm > 0, input_norm, xp.ones_like(input_norm))
    length = DIFFERENCE_STEP * xp.where(zero | (distance > limit), limit, distance)
    step = rearrange(length, "b -> b 1") * direction
    predicted, measured = _slopes(gradients, direction, step, backend.to_numpy(length))
    largest = np.maximum(np.abs(predicted), np.abs(measured))
    errors = np.abs(predicted - measured) / np.where(largest > 0, largest, 1)
    return errors, backend.to_numpy(length)


def _random_slope_error(gradients: _InputGradients, length: HostArray) -> float:
    """Return the median of |predicted - measured| sqrt(d) / ||gradient|| along random directions.

    Unlike `_slope_errors`, it detects gradients that are wrongly 0 in some of the d coordinates.
    The steps are `RANDOM_STEP` times `length` [b].
    """
    subject, length = gradients.subject, RANDOM_STEP * length
    step = subject.to_native(length[:, None].astype(subject.x.dtype)) * gradients.random
    predicted, measured = _slopes(gradients, gradients.random, step, length)
    gradient_norm = subject.backend.to_numpy(norm(subject.backend, gradients.gradient, 2))
    usual = gradient_norm / np.sqrt(gradients.x.shape[1])
    error = np.abs(measured - predicted)
    return float(np.median(error / np.where(usual > 0, usual, 1)))


def _slopes(
    gradients: _InputGradients, direction: Array, step: Array, length: HostArray
) -> tuple[HostArray, HostArray]:
    """Return the predicted and the measured slopes [b] along the unit vectors `direction` [b d].

    `step` [b d] is `direction` times the step lengths `length` [b].
    """
    backend, x = gradients.subject.backend, gradients.x
    predicted = backend.to_numpy(einsum(gradients.gradient, direction, "b d, b d -> b"))
    ahead, behind = (
        backend.to_numpy(gradients.margin(x + sign * step)).astype(np.float64) for sign in (1, -1)
    )
    return predicted.astype(np.float64), (ahead - behind) / (2 * length)


def check_second_derivative(few: Subject) -> Check:
    """Check that the framework can differentiate the input gradient a second time.

    Deep Defense with `gradient="unrolled"` needs such second derivatives.
    """
    backend, one = few.backend, few.restrict_to(np.arange(1))
    x = one.to_native(one.x)
    f, flat = flatten_inputs(backend, one.scaled_logits, x)
    label = backend.index(one.y, one.logits.shape[1], x)

    def squared_gradient_norm(point: Array) -> Array:
        logits, pull = backend.vjp(f, point)
        gradient = pull(log_odds(backend, logits, label).cotangent)
        return reduce(gradient * gradient, "b d -> b 1", "sum")

    try:
        value, pull = backend.vjp(squared_gradient_norm, flat)
        found = backend.to_numpy(pull(backend.xp.ones_like(value)))
        problem = "" if np.isfinite(found).all() else "it is NaN or infinite"
    except Exception as error:  # frameworks and operations raise errors of different types
        problem = f"{type(error).__name__}: {' '.join(str(error).split())[:120]}"
    return make_check(
        "second derivative",
        "warn" if problem else "pass",
        f"the gradient cannot be differentiated again: {problem}"
        if problem
        else "the gradient can be differentiated again",
        'It matters to hardening alone: use gradient="implicit" or "chord".',
        severe=False,
    )
