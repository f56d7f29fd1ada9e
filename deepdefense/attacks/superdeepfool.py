"""SuperDeepFool (Abdollahpour, Moosavi-Dezfooli et al., 2024): DeepFool, then a projection."""

from __future__ import annotations

import math
from typing import NamedTuple

from deepdefense.attacks.common.problem import Example, Perturbation, open_problem
from deepdefense.attacks.common.refinement import finish, project_on_hyperplane
from deepdefense.geometry.bounds import Bounds
from deepdefense.geometry.norms import norm
from deepdefense.geometry.search import SearchSettings, search_boundary
from deepdefense.seam.contract import Array, Model
from deepdefense.seam.validation import check_count, check_number, check_order

__all__ = ["superdeepfool"]


class _SuperDeepFoolState(NamedTuple):
    """The state after each round of search and projection."""

    point: Array  # [b d], the point at which the next search starts
    best: Array  # [b d], the nearest point that fooled the model
    nearest: Array  # [b], the distance of `best` from the example; inf if no point fooled the model
    steps: Array  # [b], the number of rounds


def superdeepfool(
    model: Model,
    x: Array,
    y: Array | None = None,
    *,
    p: float = 2,
    steps: int = 10,
    search_steps: int = 50,
    overshoot: float = 0.02,
    candidates: int = 10,
    bounds: Bounds | None = None,
) -> Perturbation:
    """Alternate DeepFool with a projection of x onto the hyperplane tangent to the boundary.

    In each round, DeepFool leads from x_i to a point b just across the boundary. Let w be the
    gradient of the margin at b. The projection

        x_{i+1} = x + (<b - x, w> / ||w||_q) u,    u = argmax { <w, u> : ||u||_p <= 1 },

    is the point nearest to x on the hyperplane through b with the normal w. The attack ends once
    x_{i+1} fools the model.

    Args:
        model: a function from a batch [b ...] to logits [b k], k >= 2; called in inference mode.
        x: examples [b ...], float32 or float64, in the units that the model expects.
        y: labels [b] to leave; None: the predicted classes.
        p: order of the norm to minimise, from 1 to inf; q is the order of its dual norm.
        steps: largest number of rounds of search and projection.
        search_steps: largest number of DeepFool's steps in one round.
        overshoot: how far DeepFool goes past the boundary, as a share of its perturbation.
        candidates: number of classes that DeepFool considers, the base class included: those with
            the highest logits.
        bounds: range (low, high) of perturbed examples, as numbers or arrays of an example's shape.

    Returns:
        `Perturbation` (x, delta, success, steps): the nearest point that fooled the model, refined
        (`attacks.common.refinement`); `steps` counts rounds.

    Raises:
        InputError: an argument is out of range or has the wrong shape, type or framework.

    >>> import numpy as np
    >>> weight = np.array([[3.0, 4.0], [0.0, 0.0]])
    >>> found = superdeepfool(lambda x: x @ weight.T, np.array([[1.0, 0.5]]))
    >>> round(float(np.linalg.norm(found.delta)), 2)  # 5 / ||(3, 4)||
    1.0

    Source: Abdollahpour, Kim, Moosavi-Dezfooli and Frossard (2024), "SuperDeepFool: a new fast and
    accurate minimal adversarial attack", algorithm 2, SDF(inf, 1).
    """
    order = check_order(p)
    steps = check_count("steps", steps, least=1)
    search_steps = check_count("search_steps", search_steps, least=1)
    candidates = check_count("candidates", candidates, least=2)
    overshoot = check_number("overshoot", overshoot, least=0)
    settings = SearchSettings(order, search_steps, float(overshoot), candidates)
    with open_problem(model, x, y, targeted=False, bounds=bounds) as problem:
        backend = problem.backend
        xp = backend.xp

        def try_point(
            state: _SuperDeepFoolState, example: Example, point: Array
        ) -> tuple[_SuperDeepFoolState, Array]:
            fooled = problem.is_fooled(backend.forward(problem.f, point), example.label)
            distance = norm(backend, point - example.x, order)
            best, nearest = problem.keep_nearest(state.best, state.nearest, point, distance, fooled)
            return state._replace(best=best, nearest=nearest), fooled

        def step(state: _SuperDeepFoolState, example: Example) -> tuple[_SuperDeepFoolState, Array]:
            search, _, _ = search_boundary(
                backend,
                problem.f,
                state.point,
                example.label,
                settings,
                box=problem.call.box,
            )
            crossing = problem.clip(state.point + (1 + overshoot) * search.shift)
            state, _ = try_point(state, example, crossing)
            point, exists = project_on_hyperplane(problem, example, crossing, order)
            state, fooled = try_point(state, example, point)
            return state._replace(point=point, steps=state.steps + 1), exists & ~fooled

        x, label = problem.example
        far = xp.zeros_like(x[:, 0]) + math.inf
        state = _SuperDeepFoolState(x, x, far, xp.zeros_like(label))
        state = backend.iterate(step, state, problem.example, problem.is_open, steps=steps)
        return finish(problem, state.best, state.nearest, state.point, state.steps, order)
