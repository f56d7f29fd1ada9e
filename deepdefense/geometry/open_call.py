"""`open_call`, with which every attack and the penalty begin.

It checks the arguments, puts the model into inference mode, and flattens the examples.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from deepdefense.geometry.bounds import Bounds, Box, make_box
from deepdefense.seam.choosing import backend_of
from deepdefense.seam.contract import Array, Backend, Forward, Model
from deepdefense.seam.validation import check_labels, check_logits

__all__ = ["Call", "flatten_inputs", "open_call"]


@dataclass(frozen=True)
class Call:
    """A model in inference mode and a batch of flat examples, as `open_call` yields them."""

    backend: Backend
    f: Forward  # flat points [b d] -> logits [b k]
    x: Array  # [b d], detached: no gradient flows through it
    box: Box | None  # None if there are no bounds
    shape: tuple[int, ...]  # the shape of one example before it was flattened

    def unflatten(self, rows: Array) -> Array:
        """Return flat rows [b d] in the original shape of the examples, [b ...]."""
        return self.backend.xp.reshape(rows, (-1, *self.shape))


@contextmanager
def open_call(
    model: Model,
    x: Array,
    y: Array | None,
    *,
    bounds: Bounds | None = None,
    check_examples: bool = True,
    need_labels: bool = False,
) -> Iterator[Call]:
    """Check the arguments and yield a `Call`; the model is in inference mode in the `with` block.

    Without `check_examples`, examples may lie outside the bounds. With `need_labels`, y must not be
    None. `Backend.index` checks the values of the labels later, because the number of classes is
    not known here.

    Raises:
        InputError: x is not float32 or float64, or the model, x, y and bounds do not fit together.
    """
    backend = backend_of(x, model=model, labels=y)
    backend.epsilon(x)  # raises unless x is float32 or float64
    if y is not None or need_labels:
        check_labels(y, x)
    with backend.inference(model) as f:
        box = make_box(backend, x, bounds, check_examples=check_examples)
        flat_f, flat = flatten_inputs(backend, f, backend.stop_gradient(x))
        yield Call(backend=backend, f=flat_f, x=flat, box=box, shape=tuple(x.shape[1:]))


def flatten_inputs(backend: Backend, f: Forward, x: Array) -> tuple[Forward, Array]:
    """Return the model as a function of flat examples [b d], and x [b ...] as flat examples.

    The function raises `InputError` if the model does not return logits [b k].
    """
    shape = tuple(x.shape[1:])

    def flat_f(rows: Array) -> Array:
        logits = f(backend.xp.reshape(rows, (-1, *shape)))
        check_logits(logits, rows)
        return logits

    return flat_f, backend.xp.reshape(x, (-1, math.prod(shape)))
