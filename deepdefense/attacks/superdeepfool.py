"""SuperDeepFool (Abdollahpour, Moosavi-Dezfooli et al., 2024): DeepFool, then straighten."""

from __future__ import annotations

import math
from typing import NamedTuple

from deepdefense.attacks.common.problem import Example, Perturbation, open_problem
from deepdefense.attacks.common.refinement import finish, project_on_hyperplane
from deepdefense.geometry.bounds import Bounds
from deepdefense.geometry.norms import norm
from deepdefense.geometry.search import search_boundary
from deepdefense.seam.compilers import without_autograph
from deepdefense.seam.contract import Array, Model
from deepdefense.seam.validation import check_count, check_number, check_order

__all__ = ["superdeepfool"]


class _SuperDeepFoolState(NamedTuple):
    point: Array  # [b d], where the next search sets out
    best: Array  # [b d], the nearest point that fooled
    nearest: Array  # [b], its distance
    steps: Array  # [b]


@without_autograph
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
    """Search the boundary by DeepFool, then turn the perturbation along the boundary's normal.

    From x_i DeepFool leads to a boundary point b. With w the gradient of the margin there,
    x_{i+1} = x + <b - x, w> / ||w||_q u, u = argmax { <w, u> : ||u||_p <= 1 }: the nearest point to
    x of the hyperplane through b. It repeats until x_{i+1} itself is fooled.

    Args:
        model: a batch [b ...] -> logits [b k], k >= 2; called in inference mode.
        x: examples [b ...], float32 or float64, in the units the model takes.
        y: labels [b] to leave; None: the predicted class.
        p: order of the norm to be small in, from 1 to inf; q is its dual.
        steps: the most rounds of search and turn.
        search_steps: the most steps of DeepFool in each.
        overshoot: of DeepFool, as a share of its perturbation.
        candidates: how many of the highest logits DeepFool considers.
        bounds: (low, high), the range of perturbed examples: numbers, or arrays of their shape.

    Returns:
        `Perturbation` (x, delta, success, steps): the nearest point that fooled on the way,
        brought to rest (`refinement.refine`); `steps` are rounds.

    Raises:
        InputError: an argument is out of range, or of the wrong shape, type or framework.

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
    with open_problem(model, x, y, targeted=False, bounds=bounds) as problem:
        backend = problem.backend
        xp = backend.xp

        def nearer(
            state: _SuperDeepFoolState, example: Example, point: Array, fooled: Array
        ) -> _SuperDeepFoolState:
            distance = norm(backend, point - example.x, order)
            best, nearest = problem.keep_nearest(state.best, state.nearest, point, distance, fooled)
            return state._replace(best=best, nearest=nearest)

        def step(state: _SuperDeepFoolState, example: Example) -> tuple[_SuperDeepFoolState, Array]:
            walked, _, _ = search_boundary(
                backend,
                problem.f,
                state.point,
                example.label,
                p=order,
                steps=search_steps,
                overshoot=float(overshoot),
                candidates=candidates,
                box=problem.call.box,
            )
            landed = problem.clip(state.point + (1 + overshoot) * walked.shift)
            fooled = problem.is_fooled(backend.forward(problem.f, landed), example.label)
            state = nearer(state, example, landed, fooled)
            point, there = project_on_hyperplane(problem, example, landed, order)
            fooled = problem.is_fooled(backend.forward(problem.f, point), example.label)
            state = nearer(state, example, point, fooled)
            return state._replace(point=point, steps=state.steps + 1), there & ~fooled

        x, label = problem.example
        far = xp.zeros_like(x[:, 0]) + math.inf
        state = _SuperDeepFoolState(x, x, far, xp.zeros_like(label))
        state = backend.iterate(step, state, problem.example, problem.is_open, steps=steps)
        return finish(problem, state.best, state.nearest, state.point, state.steps, order)
