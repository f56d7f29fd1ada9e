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
from deepdefense.evaluation.statistics import right
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

__all__ = ["Host", "Subject", "columned", "evenly", "finite", "posed"]

Host = npt.NDArray[Any]

# Logits are divided by one number so that their standard deviation over the classes is this, about
# what trained networks have. No decision changes, and a network that is the same up to a factor
# gets the same figures from attacks that are not blind to it.
SPREAD = 4.0


@dataclass(frozen=True, eq=False)
class Subject:
    """A network and its examples; arrays [n ...] live in host memory."""

    backend: Backend
    network: Forward  # as it came, in inference mode
    compiled: Forward  # the same, faster
    like: Any  # where batches are placed: an array or the model
    x: Host
    y: Host
    bounds: tuple[Any, Any] | None
    batch_size: int
    scale: float
    logits: Host  # of the network as it came [n k]
    training: bool  # whether it came in training mode

    def f(self, x: Array) -> Array:
        """The network's logits in common units: what attacks see."""
        return self.compiled(x) * (1 / self.scale)

    @property
    def correct(self) -> Host:
        """Where the network is right, of itself: [n]."""
        return right(self.logits, self.y)

    def native(self, x: Host) -> Array:
        """A batch as the framework's own, where the network computes."""
        return self.backend.asarray(np.array(x, order="C"), self.like)

    @property
    def native_bounds(self) -> tuple[Any, Any] | None:
        """The bounds as attacks take them."""
        if self.bounds is None:
            return None
        low, high = (
            self.native(np.asarray(bound, self.x.dtype)) if np.ndim(bound) else float(bound)
            for bound in self.bounds
        )
        return low, high

    def batches(self, rows: Host) -> Iterator[Host]:
        """Indices of examples, in batches."""
        for start in range(0, len(rows), self.batch_size):
            yield rows[start : start + self.batch_size]

    def examples(self, rows: Host) -> tuple[Array, Array]:
        """Some of the examples and their labels, as the framework's own."""
        return self.native(self.x[rows]), self.native(self.y[rows])

    def displaced(self, rows: Host, delta: Host) -> Host:
        """Examples moved by delta [m ...], clipped to the bounds, in their own type."""
        points = self.x[rows] + delta
        if self.bounds is not None:
            points = np.clip(points, *self.bounds)
        return points.astype(self.x.dtype)

    def predict(self, x: Host, batch_size: int | None = None) -> Host:
        """Logits [n k] as the network gives them, in batches of that size."""
        size = batch_size or self.batch_size
        parts = [
            self.backend.to_numpy(self.backend.forward(self.compiled, self.native(x[i : i + size])))
            for i in range(0, len(x), size)
        ]
        return np.concatenate(parts) if parts else np.zeros((0, self.logits.shape[1]))

    def sample(self, count: int) -> Subject:
        """The same network on examples spread evenly over the data."""
        return self.on(evenly(np.arange(len(self.x)), count))

    def on(self, rows: Host) -> Subject:
        """The same network on some of the examples."""
        return replace(self, x=self.x[rows], y=self.y[rows], logits=self.logits[rows])


def evenly(rows: Host, count: int) -> Host:
    """So many of the rows, or all, spread evenly over them."""
    places = np.linspace(0, len(rows) - 1, min(count, len(rows)))
    some: Host = rows[np.unique(places.astype(int))]
    return some


def columned(factors: Host, like: Host) -> Host:
    """A number for each example [m], shaped to multiply examples [m ...]."""
    return factors.reshape(-1, *[1] * (like.ndim - 1))


def finite(x: Host) -> Host:
    """The examples [n ...] that hold neither NaN nor infinity."""
    kept: Host = x[np.isfinite(x.reshape(len(x), -1)).all(1)]
    return kept


@contextmanager
def posed(
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
            bounds = _inside(host, bounds)
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
        usable = finite(logits).astype(np.float64)
        spread = float(np.sqrt(np.mean(usable.var(1)))) if len(usable) else 0.0
        scale = spread / SPREAD if 0 < spread < np.inf else 1.0
        yield replace(subject, logits=logits, scale=scale)


def _each(bound: Any, x: Host) -> Host:
    """A bound for every input of an example, as the examples' own type."""
    try:
        return np.broadcast_to(np.asarray(bound, x.dtype), x.shape[1:])
    except ValueError as error:
        raise InputError(
            f"bounds that are arrays must have the shape of an example, {list(x.shape[1:])}, got "
            f"{list(np.shape(bound))}"
        ) from error


def _inside(x: Host, bounds: Sequence[Any]) -> tuple[Any, Any]:
    """The bounds, in host memory; examples must lie within them, but for rounding."""
    low, high = (to_host(b) if framework_of(b) else b for b in bounds)
    low, high = (_each(bound, x) if np.ndim(bound) else float(bound) for bound in (low, high))
    check_within(x, np.asarray(low), np.asarray(high))
    return low, high
