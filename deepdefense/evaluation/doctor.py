"""The cheap checks: is this a network whose robustness can be measured by its gradients at all?"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from einops import einsum, rearrange, reduce

from deepdefense.attacks.common.losses import log_odds, loss_gradient, margin
from deepdefense.evaluation.checks import Check, grade, make_check
from deepdefense.evaluation.subject import HostArray, Subject, open_subject
from deepdefense.geometry.arithmetic import divide
from deepdefense.geometry.call import flatten_inputs
from deepdefense.geometry.norms import norm, steepest_direction
from deepdefense.seam.contract import Array, Model
from deepdefense.seam.validation import has_constant_sum

__all__ = ["Diagnosis", "doctor", "run_network_checks"]

WITHOUT_SOFTMAX = (
    "Pass the model without its softmax or sigmoid: attacks and distances are distorted where "
    "probabilities round to 0 and 1."
)
EXAMPLES_CHECKED = 64  # examples that are looked at
SAME = 1e-3  # of the spread of the logits: what rounding may change between two batches
PROBE = 0.02  # of the first-order distance to the boundary: the step of the differences
AGREES = 0.1  # relative: a network bends between the points of a difference
ASIDE = 0.5  # the same along a direction at random, where slopes are small and steps longer
BARELY = 0.1  # of the way from chance to perfect
COUNTED = 0.05  # of the examples: more of them failing is a fault of the network, not of a few


@dataclass(frozen=True)
class Diagnosis:
    """What the cheap checks found; iterating over it gives the checks."""

    checks: tuple[Check, ...]

    @property
    def healthy(self) -> bool:
        """No check fails."""
        return all(check.status != "fail" for check in self.checks)

    def __iter__(self) -> Iterator[Check]:
        """The checks, in order."""
        return iter(self.checks)

    def __str__(self) -> str:
        """Every check, failures first."""
        order = ("fail", "warn", "pass")
        return "\n".join(map(str, sorted(self.checks, key=lambda c: order.index(c.status))))


def doctor(
    model: Model,
    x: Array,
    y: Array,
    *,
    bounds: tuple[Any, Any] | None = None,
    batch_size: int = 500,
) -> Diagnosis:
    """Look for what would make figures of robustness wrong, in seconds, without an attack.

    Logits that are probabilities, inputs in other units than the bounds, a model in training mode,
    outputs that depend on the batch or on chance, gradients that are missing, vanishing, saturated
    or wrong.

    Args:
        model: a batch [b ...] -> logits [b k].
        x: examples [n ...], of the model's framework, or NumPy's for a native model.
        y: labels [n].
        bounds: (low, high), the range of perturbed examples: numbers, or arrays of their shape.
        batch_size: how many examples are taken at a time.

    Returns:
        `Diagnosis`, with `.checks` of `name`, `status`, `evidence`, `remedy` and `severe`.

    Raises:
        InputError: no example, or an argument out of range or of the wrong shape.

    >>> import numpy as np
    >>> weight = np.array([[3.0, 4.0], [0.0, 0.0]])
    >>> x, y = np.array([[1.0, 0.5], [-1.0, 0.25]]), np.array([0, 1])
    >>> doctor(lambda x: x @ weight.T, x, y).healthy
    True
    """
    with open_subject(model, x, y, bounds=bounds, batch_size=batch_size) as subject:
        return Diagnosis(run_network_checks(subject))


def run_network_checks(subject: Subject) -> tuple[Check, ...]:
    """Every cheap check, on a few examples spread over the data."""
    few = subject.sample(EXAMPLES_CHECKED)
    first = few.predict(few.x)
    return (
        logits(subject),
        input_range(subject),
        accuracy(subject),
        training_mode(subject),
        randomness(few),
        batch_independence(few, first),
        saturation(subject),
        *gradients(few),
        second_derivative(few),
    )


def as_percent(share: float) -> str:
    """A share, as evidence has it."""
    return f"{100 * share:.3g} %"


def logits(subject: Subject) -> Check:
    """Probabilities hide their gradients, and a distance to a boundary of them is another one."""
    values = subject.logits[np.isfinite(subject.logits).all(1)].astype(np.float64)
    odd = 1 - len(values) / len(subject.logits)
    if has_constant_sum(values):
        return make_check(
            "logits",
            "fail",
            f"no output is negative and all sum to {values.sum(1).mean():.4g}: these are "
            "probabilities, not logits",
            WITHOUT_SOFTMAX,
        )
    if len(values) > 0 and ((values >= 0) & (values <= 1)).all():
        return make_check(
            "logits", "warn", "every output is in 0..1, as probabilities", WITHOUT_SOFTMAX
        )
    if odd > 0:
        return make_check(
            "logits",
            grade(odd, 0, COUNTED),
            f"{as_percent(odd)} of the outputs are NaN or infinite",
            "Look for overflow in the model, or examples that are not finite.",
        )
    low, high = values.min(), values.max()
    return make_check("logits", "pass", f"outputs run from {low:.3g} to {high:.3g}")


def input_range(subject: Subject) -> Check:
    """Bounds in other units than the data, or none where the data plainly have some."""
    low, high = float(np.min(subject.x)), float(np.max(subject.x))
    seen = f"examples run from {low:.3g} to {high:.3g}"
    if subject.bounds is not None:
        widest = float(np.max(np.asarray(subject.bounds[1]) - np.asarray(subject.bounds[0])))
        if high - low < 0.5 * widest:
            return make_check(
                "input range",
                "warn",
                f"{seen}, but the bounds are {widest:.3g} apart",
                "Give the bounds in the units of x as the model takes it.",
                severe=False,
            )
        return make_check("input range", "pass", f"{seen}, inside of the bounds", severe=False)
    for top in (1.0, 255.0):
        if low == 0 and 0.9 * top <= high <= top:
            return make_check(
                "input range",
                "warn",
                f"{seen}, as pixels do, but no bounds are given: perturbed examples may leave that "
                "range",
                f"Pass bounds=(0, {top:g}), unless perturbations without a range are meant.",
                severe=False,
            )
    return make_check("input range", "pass", f"{seen}; no bounds are given", severe=False)


def accuracy(subject: Subject) -> Check:
    """A network that is hardly better than chance is most often fed in the wrong units."""
    right, chance = float(subject.correct.mean()), 1 / subject.logits.shape[1]
    seen = f"accuracy is {as_percent(right)}, chance {as_percent(chance)}"
    poor = right <= chance + BARELY * (1 - chance)
    return make_check(
        "accuracy",
        "warn" if poor else "pass",
        seen,
        "Check that x is normalised as in training, and that labels count the same classes.",
        severe=False,
    )


def training_mode(subject: Subject) -> Check:
    """Dropout and batch statistics belong to training; figures here are of inference mode."""
    return make_check(
        "training mode",
        "warn" if subject.in_training_mode else "pass",
        "the model came in training mode; it was switched to inference for these figures"
        if subject.in_training_mode
        else "the model is in inference mode, or has no modes",
        "Use the model in inference mode too: model.eval().",
        severe=False,
    )


def _spread(subject: Subject) -> float:
    finite = subject.logits[np.isfinite(subject.logits).all(1)]
    return float(finite.std(1).mean()) if len(finite) else 0.0


def _moved(subject: Subject, one: HostArray, other: HostArray) -> tuple[float, float]:
    """The largest change of a logit, relative to their spread; the share of examples changed."""
    gaps = np.abs(one.astype(np.float64) - other).max(1) / (_spread(subject) or 1.0)
    gaps = np.where(np.isfinite(gaps), gaps, 0.0)
    return float(gaps.max(initial=0.0)), float((gaps > SAME).mean())


def randomness(few: Subject) -> Check:
    """The same examples, three times, by the network as it came: a compiler may keep a draw."""
    plain = replace(few, compiled=few.network)
    first, *others = (plain.predict(few.x) for _ in range(3))
    moves = [_moved(few, first, other) for other in others]
    largest, share = max(moves)
    return make_check(
        "randomness",
        "fail" if share > 0 else "pass",
        f"the same examples gave outputs that differ by up to {as_percent(largest)} of their spread"
        if share > 0
        else "the same examples give the same outputs",
        "Attacks that see one draw are fooled by the next: make the model deterministic, or "
        "evaluate its mean over many draws.",
    )


def batch_independence(few: Subject, whole: HostArray) -> Check:
    """The same examples in a batch, turned round, and alone."""
    turned = few.predict(few.x[::-1])[::-1]
    alone = few.predict(few.x, batch_size=1)
    largest, share = max(_moved(few, whole, other) for other in (turned, alone))
    return make_check(
        "batch independence",
        "fail" if share > 0 else "pass",
        f"{as_percent(share)} of the outputs change with the batch they are in, by up to "
        f"{as_percent(largest)} of their spread"
        if share > 0
        else "outputs do not depend on the batch",
        "Use the statistics of training: a model that normalises by the batch has no prediction "
        "for one example.",
    )


def saturation(subject: Subject) -> Check:
    """Where softmax rounds to 0 and 1, the cross-entropy has no gradient in this precision."""
    z = subject.logits[subject.correct]
    if not len(z):
        return make_check("saturation", "pass", "no example is right", severe=False)
    powers = np.exp(z - z.max(1, keepdims=True))  # in the model's precision, as its loss would
    others = np.sort(powers, 1)[:, :-1].sum(1)
    share = float((others == 0).mean())
    rounded = float((others < np.finfo(z.dtype).eps).mean())
    return make_check(
        "saturation",
        grade(share, 0.01, COUNTED),
        f"on {as_percent(share)} of the right examples the cross-entropy's gradient is exactly 0, "
        f"on {as_percent(rounded)} the probability of the label rounds to 1",
        "Attacks by the plain cross-entropy (FGSM, PGD elsewhere) stand still there and make the "
        "network look robust. Those of this evaluation do not depend on it; others do.",
        severe=False,
    )


def gradients(few: Subject) -> tuple[Check, ...]:
    """Of the margin towards the input: finite, there, and right by central differences."""
    backend = few.backend
    xp = backend.xp
    x = few.to_native(few.x)
    label = backend.index(few.y, few.logits.shape[1], x)
    f, flat = flatten_inputs(backend, few.scaled_logits, x)

    def lead(point: Array) -> Array:
        return margin(backend, backend.forward(f, point), label).value

    _, gap, found = loss_gradient(backend, f, flat, lambda logits: margin(backend, logits, label))
    finite = xp.all(xp.isfinite(found), 1)
    whole = xp.where(rearrange(finite, "b -> b 1"), found, xp.zeros_like(found))
    slope, direction = steepest_direction(backend, whole, 2)

    # Along the gradient, or where there is none along a direction at random: that is flat too.
    random = np.random.default_rng(0).normal(size=(len(few.x), flat.shape[1]))
    other = few.to_native((random / np.linalg.norm(random, axis=1)[:, None]).astype(few.x.dtype))
    flat_here = slope == 0
    way = xp.where(rearrange(flat_here, "b -> b 1"), other, direction)
    size = norm(backend, flat, 2)
    estimate = divide(backend, xp.abs(gap), slope, where=~flat_here, keep=True)
    scale = 0.1 * xp.where(size > 0, size, xp.ones_like(size))
    reach = PROBE * xp.where(flat_here | (estimate > scale), scale, estimate)
    step = rearrange(reach, "b -> b 1") * way
    predicted = backend.to_numpy(einsum(whole, way, "b d, b d -> b")).astype(np.float64)
    forth, back = (
        backend.to_numpy(lead(flat + sign * step)).astype(np.float64) for sign in (1, -1)
    )
    measured = (forth - back) / (2 * backend.to_numpy(reach))
    largest = np.maximum(np.abs(predicted), np.abs(measured))
    errors = np.abs(predicted - measured) / np.where(largest > 0, largest, 1)
    aside = _error_aside(few, lead, flat, whole, other, backend.to_numpy(reach))
    wrong = float((errors > AGREES).mean())
    zero = float(backend.to_numpy(flat_here & finite).mean())
    broken = 1 - float(backend.to_numpy(finite).mean())
    typical = float(np.median(errors))
    astray = typical > AGREES or aside > ASIDE
    return (
        make_check(
            "gradients finite",
            grade(broken, 0, COUNTED),
            f"{as_percent(broken)} of the input gradients are NaN or infinite",
            "Look for a square root, a logarithm or a division at 0 in the model.",
        ),
        make_check(
            "gradients present",
            grade(zero, 0, COUNTED),
            f"on {as_percent(zero)} of the examples the input gradient is exactly 0",
            "Something in the model has no gradient (rounding, a threshold, a detached or "
            "saturated part): attack it through a smooth stand-in, or by gradient-free attacks.",
        ),
        make_check(
            "gradients right",
            "fail" if astray else grade(wrong, 0.25, 0.5),
            f"against central differences the median error of the slope is {as_percent(typical)} "
            f"along the gradient, where it is above {as_percent(AGREES)} on {as_percent(wrong)} of "
            f"the examples, and {as_percent(aside)} of what is usual in a direction at random",
            "The gradient is not the function's: look for a hand-written backward pass, a detached "
            "part, or an input that is quantised.",
        ),
    )


def _error_aside(
    few: Subject,
    lead: Callable[[Array], Array],
    flat: Array,
    slopes: Array,
    way: Array,
    reach: HostArray,
) -> float:
    """The median error of the slope along unit vectors drawn at random [b d].

    It is in units of what such a slope usually is, ||gradient|| / sqrt(d): a gradient that leaves
    some inputs out is right along itself, and only there.
    """
    backend, far = few.backend, 5 * reach  # such a slope is small: it needs a longer step
    step = few.to_native(far[:, None].astype(few.x.dtype)) * way
    forth, back = (
        backend.to_numpy(lead(flat + sign * step)).astype(np.float64) for sign in (1, -1)
    )
    predicted = backend.to_numpy(einsum(slopes, way, "b d, b d -> b")).astype(np.float64)
    usual = backend.to_numpy(norm(backend, slopes, 2)) / np.sqrt(flat.shape[1])
    error = np.abs((forth - back) / (2 * far) - predicted)
    return float(np.median(error / np.where(usual > 0, usual, 1)))


def second_derivative(few: Subject) -> Check:
    """Hardening by the unrolled gradient differentiates the gradient once more."""
    backend, one = few.backend, few.restrict_to(np.arange(1))
    x = one.to_native(one.x)
    f, flat = flatten_inputs(backend, one.scaled_logits, x)
    label = backend.index(one.y, one.logits.shape[1], x)

    def steepness(point: Array) -> Array:
        logits, pull = backend.vjp(f, point)
        slope = pull(log_odds(backend, logits, label).cotangent)
        return reduce(slope * slope, "b d -> b 1", "sum")

    try:
        value, pull = backend.vjp(steepness, flat)
        found = backend.to_numpy(pull(backend.xp.ones_like(value)))
        problem = "" if np.isfinite(found).all() else "it is NaN or infinite"
    except Exception as error:  # each framework, and each operation, has its own
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
