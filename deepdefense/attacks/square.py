"""The Square Attack (Andriushchenko et al., ECCV 2020): random search without gradients."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from einops import rearrange, reduce

from deepdefense.attacks.common.balls import check_ball_order, make_generators, project_ball
from deepdefense.attacks.common.losses import margin
from deepdefense.attacks.common.problem import Perturbation, Problem, open_problem
from deepdefense.geometry.bounds import Bounds
from deepdefense.seam.contract import Array, Backend, Model
from deepdefense.seam.validation import check_count, check_number

__all__ = ["square"]

Pixels = npt.NDArray[Any]  # a NumPy array of images, masks or positions

# The share of the image that a square covers is halved after each of these numbers of queries. The
# numbers hold for a search of 10,000 steps, and are scaled to the actual number of steps.
HALVING_QUERIES = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)
STEPS_DRAWN_AT_ONCE = 64  # another value would change which random numbers each step gets


class _SquareTask(NamedTuple):
    """An example, and the change that one step tries: a square and the values in it."""

    x: Array  # [b d]
    label: Array  # [b]
    paint: Array  # [b d], the new perturbation in the square (p = inf), or the bumps (p = 2)
    here: Array  # [b d], 1 inside the square, 0 outside
    there: Array  # [b d], for p = 2: 1 inside a second square, whose perturbation is removed


class _SquareState(NamedTuple):
    """The state of the search after each step."""

    point: Array  # [b d], the best point so far
    value: Array  # [b], the margin at `point`; in a targeted attack, minus the margin
    fooled: Array  # [b], whether the point tried last fools the model
    steps: Array  # [b], the number of points tried


class _Grid(NamedTuple):
    """The layout of the values of a flat example: channels, rows and columns."""

    channels: int
    rows: int
    columns: int
    channels_last: bool

    @classmethod
    def of(cls, shape: tuple[int, ...]) -> _Grid:
        """Return the layout of examples of this shape; data other than images are one row."""
        if len(shape) == 3 and min(shape[0], shape[2]) <= 4:
            last = shape[2] < shape[0]
            c, h, w = (shape[2], *shape[:2]) if last else shape
            return cls(c, h, w, last)
        if len(shape) == 2:
            return cls(1, *shape, channels_last=False)
        return cls(1, 1, math.prod(shape), channels_last=False)

    def flatten(self, images: Pixels) -> Pixels:
        """Return images [b c h w] as flat examples [b d], in the order of the examples' values."""
        pattern = "b c h w -> b (h w c)" if self.channels_last else "b c h w -> b (c h w)"
        flat: Pixels = rearrange(np.broadcast_to(images, (len(images), *self[:3])), pattern)
        return flat

    def compute_side(self, share: float) -> int:
        """Return the side of a square (in one row, a segment) that covers a share of the image."""
        most = max(self.columns - 1, 1) if self.rows == 1 else min(self.rows, self.columns)
        covered = share * self.rows * self.columns
        return max(1, min(round(covered if self.rows == 1 else math.sqrt(covered)), most))

    def place_squares(self, side: int, places: Pixels) -> tuple[Pixels, Pixels]:
        """Return squares at random positions: their masks [b 1 h w] and top left corners [b 2].

        `places` [b 2] are random numbers in [0, 1), which choose the row and the column.
        """
        height = min(side, self.rows)
        span = np.array([self.rows - height + 1, self.columns - side + 1])
        corner = np.floor(places * span).astype(int)
        row, column = corner[:, :1], corner[:, 1:]
        rows, columns = np.arange(self.rows), np.arange(self.columns)
        down = (rows >= row) & (rows < row + height)
        across = (columns >= column) & (columns < column + side)
        return rearrange(down, "b h -> b 1 h 1") & rearrange(across, "b w -> b 1 1 w"), corner


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
    """Change the perturbation in random squares, and keep each change that raises the margin.

    For p = inf, a step sets the perturbation in a square to +eps or -eps, with a random sign per
    channel. For p = 2, a step draws two squares. It adds two bumps of opposite sign to the
    perturbation in the first, removes the perturbation from the second, and then scales the first
    so that the whole perturbation has norm eps. The search starts with vertical stripes of random
    sign, and its squares shrink over time. An example that is not an image counts as an image of
    one row, with segments as squares.

    Args:
        model: a function from a batch [b ...] to logits [b k], k >= 2; called in inference mode.
        x: examples [b ...], float32 or float64, in the units that the model expects. Images
            may have their channels first or last.
        y: labels [b] to leave (None: the predicted classes) or, if `targeted`, classes to reach.
        eps: radius of the ball around each example, in the units of x.
        p: order of the norm that defines the ball, 2 or inf.
        steps: largest number of queries of the model for each example.
        share: share of the image that a square covers at first.
        targeted: whether to reach the class y instead of leaving it.
        bounds: range (low, high) of perturbed examples, as numbers or arrays of an example's shape.
        seed: seed of the random squares, which depend only on the seed and on the values of each
            example.

    Returns:
        `Perturbation` (x, delta, success, steps). The attack on an example stops once the
        perturbed example fools the model.

    Raises:
        InputError: an argument is out of range or has the wrong shape, type or framework.

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
        backend, (x, label) = problem.backend, problem.example
        xp, grid = backend.xp, _Grid.of(problem.call.shape)
        generators = make_generators(backend, x, seed)

        def flatten(images: Pixels) -> Array:
            return backend.asarray(grid.flatten(images).astype(np.float64), x)

        integer_zero, zero = xp.zeros_like(label), xp.zeros_like(x)
        value = problem.orient(margin(backend, problem.clean, label)).value
        state = _SquareState(x, value, integer_zero > 0, integer_zero)
        stripes = flatten(_draw_stripes(grid, generators, eps, order))
        try_stripes, try_square = _make_steps(problem, eps, order)
        task = _SquareTask(x, label, stripes, zero, zero)
        state = backend.iterate(try_stripes, state, task, problem.is_open, steps=1)
        for images in _draw_squares(grid, generators, share, eps, order, steps - 1):
            active = problem.is_open & ~state.fooled
            if not backend.to_numpy(active).any():
                break
            task = _SquareTask(x, label, *map(flatten, images))
            state = backend.iterate(try_square, state, task, active, steps=1)
        return problem.make_result(state.point, state.fooled, state.steps)


Step = Callable[[_SquareState, _SquareTask], tuple[_SquareState, Array]]


def _make_steps(problem: Problem, eps: float, p: float) -> tuple[Step, Step]:
    """Return two loop bodies, the first to try the initial stripes, the second to try a square."""
    backend = problem.backend
    xp = backend.xp

    def try_delta(
        state: _SquareState, task: _SquareTask, delta: Array
    ) -> tuple[_SquareState, Array]:
        radius = xp.zeros_like(delta[:, 0]) + eps
        point = problem.clip(task.x + project_ball(backend, delta, radius, p))
        logits = backend.forward(problem.f, point)
        value = problem.orient(margin(backend, logits, task.label)).value
        fooled = problem.is_fooled(logits, task.label)
        better = fooled | (value > state.value)
        point = xp.where(rearrange(better, "b -> b 1"), point, state.point)
        value = xp.where(better, value, state.value)
        return _SquareState(point, value, fooled, state.steps + 1), ~fooled

    def try_stripes(state: _SquareState, task: _SquareTask) -> tuple[_SquareState, Array]:
        return try_delta(state, task, task.paint)

    def try_square(state: _SquareState, task: _SquareTask) -> tuple[_SquareState, Array]:
        delta = state.point - task.x
        if p == math.inf:
            return try_delta(state, task, xp.where(task.here > 0, task.paint, delta))
        return try_delta(state, task, _add_bumps(backend, task, delta, eps))

    return try_stripes, try_square


def _add_bumps(backend: Backend, task: _SquareTask, delta: Array, eps: float) -> Array:
    """Return delta [b d] with the bumps added in the first square, and 0 in the second square.

    The new values in the first square are scaled so that the 2-norm of the whole result is eps.
    """
    xp = backend.xp

    def sum_squares(rows: Array) -> Array:
        return reduce(rows * rows, "b d -> b 1", "sum")

    def guarded_norm(rows: Array) -> Array:
        total = sum_squares(rows)
        return xp.sqrt(xp.where(total > 0, total, xp.ones_like(total)))

    here = task.here * delta
    either = xp.maximum(task.here, task.there)
    budget = sum_squares(either * delta) + eps * eps - sum_squares(delta)
    bumps = task.paint + here / guarded_norm(here)
    length = xp.sqrt(xp.where(budget > 0, budget, xp.zeros_like(budget)))
    return (1 - either) * delta + length * bumps / guarded_norm(bumps)


def _draw_stripes(
    grid: _Grid, generators: list[np.random.Generator], eps: float, p: float
) -> Pixels:
    """Draw a perturbation [b c h w] of norm eps, with a random sign per column and channel."""
    shape = (grid.channels, 1, grid.columns)
    signs = np.reshape([g.choice((-1.0, 1.0), shape) for g in generators], (-1, *shape))
    values = grid.channels * grid.rows * grid.columns
    return np.broadcast_to(
        signs * (eps if p == math.inf else eps / math.sqrt(values)),
        (len(signs), *grid[:3]),
    )


def _draw_squares(
    grid: _Grid,
    generators: list[np.random.Generator],
    share: float,
    eps: float,
    p: float,
    steps: int,
) -> Iterator[tuple[Pixels, Pixels, Pixels]]:
    """Yield `paint`, `here` and `there` of a `_SquareTask` for each step, as images [b c h w]."""
    for first in range(0, steps, STEPS_DRAWN_AT_ONCE):
        numbers = np.reshape(
            [g.random((STEPS_DRAWN_AT_ONCE, 5 + grid.channels)) for g in generators],
            (-1, STEPS_DRAWN_AT_ONCE, 5 + grid.channels),
        )
        for step in range(first, min(first + STEPS_DRAWN_AT_ONCE, steps)):
            random = numbers[:, step - first]
            done = 10_000 * step / steps
            side = grid.compute_side(share / 2 ** sum(done > limit for limit in HALVING_QUERIES))
            here, corner = grid.place_squares(side, random[:, :2])
            signs = rearrange(np.where(random[:, 5:] < 0.5, -1.0, 1.0), "b c -> b c 1 1")
            if p == math.inf:
                yield eps * signs * here, here, here
                continue
            there, _ = grid.place_squares(side, random[:, 2:4])
            bumps = _make_dipole(grid, side, corner, random[:, 4] < 0.5)
            yield signs * here * bumps, here, there


def _make_dipole(grid: _Grid, side: int, corner: Pixels, upright: Pixels) -> Pixels:
    """Return two bumps of opposite sign for each square, one in each half of the square.

    The halves are side by side or, where `upright` [b] is True, one above the other. The height of
    a bump in the ring of pixels at distance `ring` from its centre is sum_{k >= ring} 1/(k + 1)^2.

    Shapes: corner [b 2] -> [b 1 h w].
    """
    sides = np.array([min(side, grid.rows), side])
    rows = np.arange(grid.rows) - corner[:, :1]
    columns = np.arange(grid.columns) - corner[:, 1:]
    place = (rearrange(rows, "b h -> b h 1"), rearrange(columns, "b w -> b 1 w"))
    heights = np.cumsum(1 / np.arange(side + 1, 0, -1.0) ** 2)[::-1]

    def make_along(axis: int) -> Pixels:
        """Return the bumps if the square is halved along `axis` (0 for rows, 1 for columns)."""
        middle = sides[axis] // 2
        second = place[axis] >= middle
        half = np.where(second, sides[axis] - middle, max(middle, 1))
        start = np.where(second, middle, 0)
        along = np.abs(place[axis] - start - half // 2)
        across = np.abs(place[1 - axis] - sides[1 - axis] // 2)
        rings = np.minimum(np.maximum(along, across), side)
        dipole: Pixels = np.where(second, -1.0, 1.0) * heights[rings]
        return dipole

    level = make_along(1)
    vertical = level if grid.rows == 1 else make_along(0)
    dipole = np.where(rearrange(upright, "b -> b 1 1"), vertical, level)
    return rearrange(dipole, "b h w -> b 1 h w")
