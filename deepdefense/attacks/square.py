"""The Square Attack (Andriushchenko et al., ECCV 2020): random search, without a gradient."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from einops import rearrange, reduce

from deepdefense.attacks.common.balls import check_ball_order, make_generators, project_ball
from deepdefense.attacks.common.losses import margin
from deepdefense.attacks.common.problem import Perturbation, open_problem
from deepdefense.geometry.bounds import Bounds
from deepdefense.seam.compilers import without_autograph
from deepdefense.seam.contract import Array, Model
from deepdefense.seam.validation import check_count, check_number

__all__ = ["square"]

HostArray = npt.NDArray[Any]

# After these many of 10,000 queries the share of the image that a square covers is halved.
HALVED = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)
AHEAD = 64  # steps whose random numbers are drawn at once


class _SquareTask(NamedTuple):
    x: Array  # [b d]
    label: Array  # [b]
    paint: Array  # [b d], what the square is to hold
    here: Array  # [b d], 1 in the square
    there: Array  # [b d], 1 in another square, which gives up its share (p = 2)


class _SquareState(NamedTuple):
    point: Array  # [b d]
    value: Array  # [b], of the margin there
    found: Array  # [b]
    steps: Array  # [b]


class _Grid(NamedTuple):
    """How the values of a flat example lie: channels, rows, columns."""

    channels: int
    rows: int
    columns: int
    last: bool  # the channels come last

    @classmethod
    def of(cls, shape: tuple[int, ...]) -> _Grid:
        """An image by its shape, channels first or last; all else is one row."""
        if len(shape) == 3 and min(shape[0], shape[2]) <= 4:
            last = shape[2] < shape[0]
            c, h, w = (shape[2], *shape[:2]) if last else shape
            return cls(c, h, w, last)
        if len(shape) == 2:
            return cls(1, *shape, last=False)
        return cls(1, 1, math.prod(shape), last=False)

    def flat(self, images: HostArray) -> HostArray:
        """[b c h w] -> [b d]."""
        pattern = "b c h w -> b (h w c)" if self.last else "b c h w -> b (c h w)"
        flat: HostArray = rearrange(np.broadcast_to(images, (len(images), *self[:3])), pattern)
        return flat

    def side(self, share: float) -> int:
        """The side of a square (the length of a stretch of one row) that covers this share."""
        most = max(self.columns - 1, 1) if self.rows == 1 else min(self.rows, self.columns)
        covered = share * self.rows * self.columns
        return max(1, min(round(covered if self.rows == 1 else math.sqrt(covered)), most))

    def window(self, side: int, at: HostArray) -> tuple[HostArray, HostArray]:
        """Squares of that side, placed by numbers [b 2] in [0, 1): masks [b 1 h w], corners."""
        height = min(side, self.rows)
        span = np.array([self.rows - height + 1, self.columns - side + 1])
        corner = np.floor(at * span).astype(int)
        row, column = corner[:, :1], corner[:, 1:]
        rows, columns = np.arange(self.rows), np.arange(self.columns)
        down = (rows >= row) & (rows < row + height)
        across = (columns >= column) & (columns < column + side)
        return rearrange(down, "b h -> b 1 h 1") & rearrange(across, "b w -> b 1 1 w"), corner


@without_autograph
def square(
    model: Model,
    x: Array,
    y: Array | None = None,
    *,
    eps: float,
    p: float = math.inf,
    steps: int = 5000,
    share: float = 0.8,
    targeted: bool = False,
    bounds: Bounds | None = None,
    seed: int = 0,
) -> Perturbation:
    """Squares at random places, kept when they raise the margin; no gradient is asked for.

    p = inf: a square is set to +eps or -eps, a sign for each channel. p = 2: it takes two bumps of
    opposite sign, added to what is there, of the length that is left of eps and that another
    square, set to 0, gives up. The search begins with columns of one sign, in both norms, and its
    squares shrink as it goes on. An example that is no image is one row, and its squares are
    stretches of it.

    Args:
        model: a batch [b ...] -> logits [b k], k >= 2; called in inference mode.
        x: examples [b ...], float32 or float64, in the units the model takes; images may have their
            channels first or last.
        y: labels [b] to leave (None: the predicted class) or, if `targeted`, to reach.
        eps: radius of the ball, in the units of x.
        p: order of the norm, 2 or inf.
        steps: queries of the model for each example.
        share: of the image that a square covers at first.
        targeted: reach the class y instead of leaving it.
        bounds: (low, high), the range of perturbed examples: numbers, or arrays of their shape.
        seed: of the squares; what is drawn depends on it and on the example's own values.

    Returns:
        `Perturbation` (x, delta, success, steps). An example is done as soon as it is fooled.

    Raises:
        InputError: an argument is out of range, or of the wrong shape, type or framework.

    >>> import numpy as np
    >>> weight = np.array([[3.0, 4.0], [0.0, 0.0]])
    >>> square(lambda x: x @ weight.T, np.array([[1.0, 0.5]]), eps=0.75, steps=50).success
    array([ True])

    Source: Andriushchenko, Croce, Flammarion and Hein (2020), "Square Attack: a query-efficient
    black-box adversarial attack via random search", algorithms 1 to 4.
    """
    eps = check_number("eps", eps, least=0)
    share = check_number("share", share, least=0, below=1)
    steps = check_count("steps", steps, least=1)
    order = check_ball_order(p)
    with open_problem(model, x, y, targeted=targeted, bounds=bounds) as problem:
        backend, (flat, label) = problem.backend, problem.example
        xp, grid = backend.xp, _Grid.of(problem.call.shape)

        def into(x: Array, delta: Array) -> Array:
            radius = xp.zeros_like(x[:, 0]) + eps
            return problem.clip(x + project_ball(backend, delta, radius, order))

        def tried(
            state: _SquareState, fixed: _SquareTask, point: Array
        ) -> tuple[_SquareState, Array]:
            logits = backend.forward(problem.f, point)
            value = problem.orient(margin(backend, logits, fixed.label)).value
            fooled = problem.is_fooled(logits, fixed.label)
            better = fooled | (value > state.value)
            kept = xp.where(rearrange(better, "b -> b 1"), point, state.point)
            value = xp.where(better, value, state.value)
            return _SquareState(kept, value, fooled, state.steps + 1), ~fooled

        def size(delta: Array) -> Array:
            return reduce(delta * delta, "b d -> b 1", "sum")

        def step(state: _SquareState, fixed: _SquareTask) -> tuple[_SquareState, Array]:
            delta = state.point - fixed.x
            if order == math.inf:
                moved = xp.where(fixed.here > 0, fixed.paint, delta)
                return tried(state, fixed, into(fixed.x, moved))
            own = fixed.here * delta
            either = xp.maximum(fixed.here, fixed.there)
            left = size(either * delta) + eps * eps - size(delta)
            there = size(own) > 0
            scale = xp.sqrt(xp.where(there, size(own), xp.ones_like(left)))
            bump = fixed.paint + own / scale
            length = xp.sqrt(xp.where(size(bump) > 0, size(bump), xp.ones_like(left)))
            given = xp.sqrt(xp.where(left > 0, left, xp.zeros_like(left)))
            return tried(state, fixed, into(fixed.x, (1 - either) * delta + given * bump / length))

        def place(value: HostArray) -> Array:
            return backend.asarray(grid.flat(value).astype(np.float64), flat)

        sources = make_generators(backend, flat, seed)
        none, zero = xp.zeros_like(label), xp.zeros_like(flat)
        state = _SquareState(
            flat, problem.orient(margin(backend, problem.clean, label)).value, none > 0, none
        )
        first = _SquareTask(flat, label, place(_stripes(grid, sources, eps, order)), zero, zero)
        active = problem.is_open
        state = backend.iterate(
            lambda state, fixed: tried(state, fixed, into(fixed.x, fixed.paint)),
            state,
            first,
            active,
            steps=1,
        )
        for paint, here, there in _proposals(grid, sources, share, eps, order, steps - 1):
            active = problem.is_open & ~state.found
            if not backend.to_numpy(active).any():
                break
            fixed = _SquareTask(flat, label, place(paint), place(here), place(there))
            state = backend.iterate(step, state, fixed, active, steps=1)
        return problem.make_result(state.point, state.found, state.steps)


def _stripes(grid: _Grid, sources: list[np.random.Generator], eps: float, p: float) -> HostArray:
    """Where the search begins: columns of one sign for each channel, of length eps: [b c h w]."""
    signs = np.reshape(
        [source.choice((-1.0, 1.0), (grid.channels, 1, grid.columns)) for source in sources],
        (-1, grid.channels, 1, grid.columns),
    )
    values = grid.channels * grid.rows * grid.columns
    return np.broadcast_to(
        signs * (eps if p == math.inf else eps / math.sqrt(values)),
        (len(signs), *grid[:3]),
    )


def _proposals(
    grid: _Grid,
    sources: list[np.random.Generator],
    share: float,
    eps: float,
    p: float,
    steps: int,
) -> Iterator[tuple[HostArray, HostArray, HostArray]]:
    """What is to be tried: paint, and masks of two squares, [b c h w] each."""
    for first in range(0, steps, AHEAD):
        drawn = np.reshape(
            [source.random((AHEAD, 5 + grid.channels)) for source in sources],
            (-1, AHEAD, 5 + grid.channels),
        )
        for step in range(first, min(first + AHEAD, steps)):
            random = drawn[:, step - first]
            done = 10_000 * step / steps
            side = grid.side(share / 2 ** sum(done > limit for limit in HALVED))
            here, corner = grid.window(side, random[:, :2])
            signs = rearrange(np.where(random[:, 5:] < 0.5, -1.0, 1.0), "b c -> b c 1 1")
            if p == math.inf:
                yield eps * signs * here, here, here
                continue
            there, _ = grid.window(side, random[:, 2:4])
            bumps = _dipole(grid, side, corner, random[:, 4] < 0.5)
            yield signs * here * bumps, here, there


def _dipole(grid: _Grid, side: int, corner: HostArray, upright: HostArray) -> HostArray:
    """Two bumps of opposite sign in the halves of each square, side by side or `upright` [b].

    From its centre a bump falls off with the rings around it, sum_{k >= ring} 1 / (k + 1)^2.

    Shapes: corners [b 2] -> [b 1 h w].
    """
    sides = np.array([min(side, grid.rows), side])
    at = [np.arange(n) - corner[:, i : i + 1] for i, n in enumerate((grid.rows, grid.columns))]
    place = (rearrange(at[0], "b h -> b h 1"), rearrange(at[1], "b w -> b 1 w"))
    falling = np.cumsum(1 / np.arange(side + 1, 0, -1.0) ** 2)[::-1]

    def halved(along: int) -> HostArray:
        """The dipole whose halves follow one another along that axis."""
        middle = sides[along] // 2
        second = place[along] >= middle
        half = np.where(second, sides[along] - middle, max(middle, 1))
        start = np.where(second, middle, 0)
        off = np.abs(place[along] - start - half // 2)
        across = np.abs(place[1 - along] - sides[1 - along] // 2)
        rings = np.minimum(np.maximum(off, across), side)
        dipole: HostArray = np.where(second, -1.0, 1.0) * falling[rings]
        return dipole

    one_row = grid.rows == 1
    down = halved(1) if one_row else halved(0)
    chosen = np.where(rearrange(upright, "b -> b 1 1"), down, halved(1))
    return rearrange(chosen, "b h w -> b 1 h w")
