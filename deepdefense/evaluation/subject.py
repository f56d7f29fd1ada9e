"""What is evaluated: a network in inference mode, and the examples it is judged on."""

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

HostArray = npt.NDArray[Any]

# Logits are divided by one number so that their standard deviation over the classes is this, about
# what trained networks have. No decision changes, and a network that is the same up to a factor
# gets the same figures from attacks that are not blind to it.
LOGIT_SPREAD = 4.0


@dataclass(frozen=True, eq=False)
class Subject:
    """A network and its examples; arrays [n ...] live in host memory."""

    backend: Backend
    network: Forward  # as it came, in inference mode
    compiled: Forward  # the same, faster
    like: Any  # where batches are placed: an array or the model
    x: HostArray
    y: HostArray
    bounds: tuple[Any, Any] | None
    batch_size: int
    scale: float
    logits: HostArray  # of the network as it came [n k]
    in_training_mode: bool  # whether it came in training mode

    def scaled_logits(self, x: Array) -> Array:
        """The network's logits in common units: what attacks see."""
        return self.compiled(x) * (1 / self.scale)

    @property
    def correct(self) -> HostArray:
        """Where the network is right, of itself: [n]."""
        return is_correct(self.logits, self.y)

    def to_native(self, x: HostArray) -> Array:
        """A batch as the framework's own, where the network computes."""
        return self.backend.asarray(np.array(x, order="C"), self.like)

    @property
    def native_bounds(self) -> tuple[Any, Any] | None:
        """The bounds as attacks take them."""
        if self.bounds is None:
            return None
        low, high = (
            self.to_native(np.asarray(bound, self.x.dtype)) if np.ndim(bound) else float(bound)
            for bound in self.bounds
        )
        return low, high

    def iterate_batches(self, rows: HostArray) -> Iterator[HostArray]:
        """Indices of examples, in batches."""
        for start in range(0, len(rows), self.batch_size):
            yield rows[start : start + self.batch_size]

    def load_examples(self, rows: HostArray) -> tuple[Array, Array]:
        """Some of the examples and their labels, as the framework's own."""
        return self.to_native(self.x[rows]), self.to_native(self.y[rows])

    def displace(self, rows: HostArray, delta: HostArray) -> HostArray:
        """Examples moved by delta [m ...], clipped to the bounds, in their own type."""
        points = self.x[rows] + delta
        if self.bounds is not None:
            points = np.clip(points, *self.bounds)
        return points.astype(self.x.dtype)

    def predict(self, x: HostArray, batch_size: int | None = None) -> HostArray:
        """Logits [n k] as the network gives them, in batches of that size."""
        size = batch_size or self.batch_size
        parts = [
            self.backend.to_numpy(
                self.backend.forward(self.compiled, self.to_native(x[i : i + size]))
            )
            for i in range(0, len(x), size)
        ]
        return np.concatenate(parts) if parts else np.zeros((0, self.logits.shape[1]))

    def sample(self, count: int) -> Subject:
        """The same network on examples spread evenly over the data."""
        return self.restrict_to(pick_evenly(np.arange(len(self.x)), count))

    def restrict_to(self, rows: HostArray) -> Subject:
        """The same network on some of the examples."""
        return replace(self, x=self.x[rows], y=self.y[rows], logits=self.logits[rows])


def pick_evenly(rows: HostArray, count: int) -> HostArray:
    """So many of the rows, or all, spread evenly over them."""
    places = np.linspace(0, len(rows) - 1, min(count, len(rows)))
    some: HostArray = rows[np.unique(places.astype(int))]
    return some


def expand_to(factors: HostArray, like: HostArray) -> HostArray:
    """A number for each example [m], shaped to multiply examples [m ...]."""
    return factors.reshape(-1, *[1] * (like.ndim - 1))


def select_finite(x: HostArray) -> HostArray:
    """The examples [n ...] that hold neither NaN nor infinity."""
    kept: HostArray = x[np.isfinite(x.reshape(len(x), -1)).all(1)]
    return kept


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
    """The subject, while the model is in inference mode; raises `InputError` for unfit data.

    `beside` is another network's, whose framework and place it shares.
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
    elsewhere = framework_of(x) == "numpy" and backend.name != "numpy"
    like = beside.like if beside else model if elsewhere else x
    host, labels = to_host(x), to_host(y)
    check_bounds(bounds)
    training = getattr(getattr(model, "__self__", model), "training", False) is True
    with backend.precise(), backend.inference(model) as network, warnings.catch_warnings():
        warnings.simplefilter("ignore", ProbabilityWarning)  # the check of logits tells it
        first = backend.asarray(host[:1], like)
        backend.epsilon(first)
        host = host.astype(backend.to_numpy(first).dtype, copy=False)  # what the network sees
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
        usable = select_finite(logits).astype(np.float64)
        spread = float(np.sqrt(np.mean(usable.var(1)))) if len(usable) else 0.0
        scale = spread / LOGIT_SPREAD if 0 < spread < np.inf else 1.0
        yield replace(subject, logits=logits, scale=scale)


def _broadcast_bound(bound: Any, x: HostArray) -> HostArray:
    """A bound for every input of an example, as the examples' own type."""
    try:
        return np.broadcast_to(np.asarray(bound, x.dtype), x.shape[1:])
    except ValueError as error:
        raise InputError(
            f"bounds that are arrays must have the shape of an example, {list(x.shape[1:])}, got "
            f"{list(np.shape(bound))}"
        ) from error


def _prepare_bounds(x: HostArray, bounds: Sequence[Any]) -> tuple[Any, Any]:
    """The bounds, in host memory; examples must lie within them, but for rounding."""
    low, high = (to_host(b) if framework_of(b) else b for b in bounds)
    low, high = (
        _broadcast_bound(bound, x) if np.ndim(bound) else float(bound) for bound in (low, high)
    )
    check_within(x, np.asarray(low), np.asarray(high))
    return low, high
