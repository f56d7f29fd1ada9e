"""The subject of an evaluation: a network in inference mode, and the examples to test it on."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from deepdefense.errors import InputError, ProbabilityWarning
from deepdefense.evaluation.statistics import is_correct
from deepdefense.geometry.bounds import check_within
from deepdefense.seam.choosing import backend_for, framework_of, to_host
from deepdefense.seam.contract import Array, Backend, Forward, Model
from deepdefense.seam.validation import (
    call_model,
    check_bounds,
    check_count,
    check_indices,
    check_labels,
    check_logits,
)

__all__ = ["HostArray", "Subject", "expand_to", "open_subject", "pick_evenly", "select_finite"]

HostArray = npt.NDArray[Any]  # an array in host memory

# Attacks get the logits divided by one positive number per network, so that two networks whose
# logits differ by a constant factor get the same figures. After the division, the standard
# deviation of an example's logits over the classes is about this number.
LOGIT_SPREAD = 4.0


@dataclass(frozen=True, eq=False)
class Subject:
    """A network in inference mode, with n examples, their labels and their logits in host memory.

    `open_subject` makes a subject.
    """

    backend: Backend
    network: Forward
    compiled: Forward  # `network`, perhaps compiled by the framework to run faster
    like: Any  # an array or the model; batches are placed on its device
    x: HostArray  # the examples [n ...]
    y: HostArray  # the labels [n]
    bounds: tuple[Any, Any] | None  # the range (low, high) of perturbed examples
    batch_size: int
    scale: float  # `scaled_logits` divides the logits by this number
    logits: HostArray  # the logits [n k] of the examples, not divided by `scale`
    in_training_mode: bool  # whether the caller passed the model in training mode

    def scaled_logits(self, x: Array) -> Array:
        """Return the logits [b k] of a batch, divided by `scale`; attacks run on this function."""
        return self.compiled(x) * (1 / self.scale)

    @property
    def correct(self) -> HostArray:
        """A mask [n] of the examples that the network classifies correctly."""
        return is_correct(self.logits, self.y)

    def to_native(self, x: HostArray) -> Array:
        """Copy a batch from host memory to an array of the framework, on the device of `like`."""
        return self.backend.asarray(np.array(x, order="C"), self.like)

    @property
    def native_bounds(self) -> tuple[Any, Any] | None:
        """The bounds in the form that attacks accept: numbers, or arrays of the framework."""
        if self.bounds is None:
            return None
        low, high = (
            self.to_native(np.asarray(bound, self.x.dtype)) if np.ndim(bound) else float(bound)
            for bound in self.bounds
        )
        return low, high

    def iterate_batches(self, rows: HostArray) -> Iterator[HostArray]:
        """Split indices of examples [m] into batches, and yield the indices of each batch."""
        for start in range(0, len(rows), self.batch_size):
            yield rows[start : start + self.batch_size]

    def load_examples(self, rows: HostArray) -> tuple[Array, Array]:
        """Return the examples with these indices and their labels, as arrays of the framework."""
        return self.to_native(self.x[rows]), self.to_native(self.y[rows])

    def displace(self, rows: HostArray, delta: HostArray) -> HostArray:
        """Return the m examples with these indices, plus delta [m ...], clipped to the bounds.

        The result has the dtype of the examples.
        """
        points = self.x[rows] + delta
        if self.bounds is not None:
            points = np.clip(points, *self.bounds)
        return points.astype(self.x.dtype)

    def predict(self, x: HostArray, batch_size: int | None = None) -> HostArray:
        """Compute the logits [m k] of examples [m ...] in batches, not divided by `scale`."""
        size = batch_size or self.batch_size
        parts = [
            self.backend.to_numpy(
                self.backend.forward(self.compiled, self.to_native(x[i : i + size]))
            )
            for i in range(0, len(x), size)
        ]
        return np.concatenate(parts) if parts else np.zeros((0, self.logits.shape[1]))

    def sample(self, count: int) -> Subject:
        """Return a subject with this network and at most `count` of its examples, evenly spaced."""
        return self.restrict_to(pick_evenly(np.arange(len(self.x)), count))

    def restrict_to(self, rows: HostArray) -> Subject:
        """Return a subject with this network and only the examples with the indices `rows`."""
        return replace(self, x=self.x[rows], y=self.y[rows], logits=self.logits[rows])


def pick_evenly(rows: HostArray, count: int) -> HostArray:
    """Return at most `count` of the entries of `rows`, at even spacing from first to last."""
    positions = np.linspace(0, len(rows) - 1, min(count, len(rows)))
    picked: HostArray = rows[np.unique(positions.astype(int))]
    return picked


def expand_to(factors: HostArray, like: HostArray) -> HostArray:
    """Reshape one factor per example [m] to [m 1 ... 1], to multiply examples [m ...] by it."""
    return factors.reshape(-1, *[1] * (like.ndim - 1))


def select_finite(x: HostArray) -> HostArray:
    """Return only the examples of x [n ...] whose values are all finite."""
    finite: HostArray = x[np.isfinite(x.reshape(len(x), -1)).all(1)]
    return finite


@contextmanager
def open_subject(
    model: Model,
    x: Array,
    y: Array,
    *,
    bounds: Any,
    batch_size: int,
    beside: Subject | None = None,
) -> Iterator[Subject]:
    """Put the model in inference mode, and yield a subject of this model and these examples.

    When the context ends, the model returns to its former mode.

    Args:
        model: a batch [b ...] -> logits [b k].
        x: examples [n ...].
        y: labels [n].
        bounds: (low, high), the range of perturbed examples, or None.
        batch_size: the number of examples in a batch.
        beside: the subject of another network, whose framework and device are used if it is given.

    Raises:
        InputError: the examples, labels or bounds do not match each other or the model.
    """
    if framework_of(x) is None:
        raise InputError(f"examples must be an array, got {type(x).__name__}: convert it first")
    backend = beside.backend if beside else backend_for(model, x)
    batch_size = check_count("batch_size", batch_size, least=1)
    if y is None:
        raise InputError("an evaluation needs y, the label of each example")
    check_labels(y, x)
    if len(x) == 0:
        raise InputError("there is no example to evaluate on")
    foreign = framework_of(x) == "numpy" and backend.name != "numpy"
    like = beside.like if beside else model if foreign else x
    host, labels = to_host(x), to_host(y)
    check_bounds(bounds)
    training = getattr(getattr(model, "__self__", model), "training", False) is True
    with backend.precise(), backend.inference(model) as network, warnings.catch_warnings():
        # `check_logit_values` reports outputs that are probabilities, so a warning is not needed.
        warnings.simplefilter("ignore", ProbabilityWarning)
        first = backend.asarray(host[:1], like)
        backend.epsilon(first)
        host = host.astype(backend.to_numpy(first).dtype, copy=False)
        if bounds is not None:
            bounds = _prepare_bounds(host, bounds)
        check_logits(call_model(network, first), first)
        subject = Subject(
            backend,
            network,
            backend.compiled(network),
            like,
            host,
            labels,
            bounds,
            batch_size,
            1.0,
            np.zeros((0, 2)),
            training,
        )
        logits = subject.predict(host)
        whole = np.issubdtype(labels.dtype, np.integer)
        check_indices(whole, labels.dtype, labels, logits.shape[1])
        yield replace(subject, logits=logits, scale=_logit_scale(logits))


def _logit_scale(logits: HostArray) -> float:
    """Return the number by which to divide logits [n k] so that their spread is `LOGIT_SPREAD`."""
    finite = select_finite(logits).astype(np.float64)
    spread = float(np.sqrt(np.mean(finite.var(1)))) if len(finite) else 0.0
    return spread / LOGIT_SPREAD if 0 < spread < np.inf else 1.0


def _broadcast_bound(bound: Any, x: HostArray) -> HostArray:
    """Broadcast one bound to the shape of an example, in the dtype of the examples x [n ...]."""
    try:
        return np.broadcast_to(np.asarray(bound, x.dtype), x.shape[1:])
    except ValueError as error:
        raise InputError(
            f"bounds that are arrays must have the shape of an example, {list(x.shape[1:])}, got "
            f"{list(np.shape(bound))}"
        ) from error


def _prepare_bounds(x: HostArray, bounds: Sequence[Any]) -> tuple[Any, Any]:
    """Return the bounds as numbers or NumPy arrays; raise if an example of x lies outside."""
    low, high = (to_host(b) if framework_of(b) else b for b in bounds)
    low, high = (
        _broadcast_bound(bound, x) if np.ndim(bound) else float(bound) for bound in (low, high)
    )
    check_within(x, np.asarray(low), np.asarray(high))
    return low, high
