"""Balls of radius eps in the 2-norm and the maximum norm: projections and random points."""

from __future__ import annotations

import hashlib
import math
from typing import Any

import numpy as np
from einops import rearrange

from deepdefense.errors import InputError
from deepdefense.geometry.arithmetic import divide
from deepdefense.geometry.norms import norm
from deepdefense.seam.contract import Array, Backend
from deepdefense.seam.validation import check_count

__all__ = ["check_ball_order", "draw_start", "make_generators", "project_ball"]


def check_ball_order(p: Any) -> float:
    """Return the order p of the norm as a float; raise `InputError` unless it is 2 or inf."""
    if p not in (2, math.inf) or isinstance(p, bool):
        raise InputError(f"p must be 2 or inf for an attack within eps, got {p!r}")
    return float(p)


def project_ball(backend: Backend, delta: Array, radius: Array, p: float) -> Array:
    """Project delta [b d] onto the ball around 0 with the given radius [b], in the p-norm."""
    xp = backend.xp
    edge = rearrange(radius, "b -> b 1")
    if p == math.inf:
        return xp.maximum(xp.minimum(delta, edge), -edge)
    size = rearrange(norm(backend, delta, p), "b -> b 1")
    outside = size > edge
    return xp.where(outside, delta * divide(backend, edge, size, where=outside, keep=True), delta)


def make_generators(backend: Backend, x: Array, seed: int) -> list[np.random.Generator]:
    """Return a random number generator for each example, seeded by its values and by `seed`.

    The random numbers of an example therefore do not depend on its position in the batch, on the
    framework, or on the device.

    Raises:
        InputError: the call is inside a compiled function, where values are not concrete.
    """
    seed = check_count("seed", seed, least=0)
    if not backend.is_concrete(x):
        raise InputError(
            "random starts are drawn from the values of the examples, which are not known inside "
            "of a compiled function: call the attack outside of it, or with random_start=False"
        )
    rows = backend.to_numpy(x)
    key = seed.to_bytes(16, "little")
    digests = (hashlib.blake2b(row.tobytes(), key=key, digest_size=16) for row in rows)
    words = (np.frombuffer(digest.digest(), np.uint64) for digest in digests)
    return [np.random.Generator(np.random.Philox(key=word)) for word in words]


def draw_start(
    backend: Backend, x: Array, generators: list[np.random.Generator], eps: float, p: float
) -> Array:
    """Draw a point for each example uniformly from the ball of radius eps around 0: [b d]."""
    d = x.shape[1]
    if p == math.inf:
        rows = [generator.uniform(-eps, eps, d) for generator in generators]
    else:
        rows = []
        for generator in generators:
            direction = generator.normal(size=d)
            unit = direction / np.linalg.norm(direction)
            rows.append(unit * eps * generator.uniform() ** (1 / d))
    return backend.asarray(np.reshape(rows, (-1, d)), x)
