"""The optimizer of the JAX backend: SGD on a model that is a pytree, with optax."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from itertools import count
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
import optax
from jax import Array

from deepdefense.seam.training_contract import Losses, LossFunction, StepResult
from deepdefense_jax.networks import ZooModel
from deepdefense_jax.weights import (
    Arrays,
    from_torch_layout,
    name_parameters,
    replace_parameters,
    to_torch_layout,
)

__all__ = ["JaxTrainer"]


def _statistics(model: Any) -> dict[str, Array]:
    """Return the running statistics of a zoo network, which SGD does not train; else nothing."""
    return model.statistics if isinstance(model, ZooModel) else {}


def _training_mode(model: Any, key: Array) -> Callable[[Array], Array]:
    """Return the model as a function in training mode, which draws dropout masks from `key`.

    Each call of the function updates the running statistics in `model`, as PyTorch does.
    """
    if not isinstance(model, ZooModel):
        return model  # type: ignore[no-any-return]
    calls = count()

    def forward(x: Array) -> Array:
        logits, statistics = model.training(x, jax.random.fold_in(key, next(calls)))
        model.weights.update(statistics)
        return logits

    return forward


class _State(NamedTuple):
    """All values that change during training; `JaxTrainer.state` saves them."""

    parameters: dict[str, Array]
    momentum: Any
    statistics: dict[str, Array]
    steps: Array  # the number of steps so far, from which each step derives its dropout key


class JaxTrainer:
    """A model that is a pytree, and its SGD optimizer.

    The trainer compiles each loss function once per batch shape. It implements
    `deepdefense.seam.training_contract.Trainer`. `JaxTraining.trainer` makes it.
    """

    def __init__(self, model: Any, momentum: float, weight_decay: float, seed: int) -> None:
        self._start = model
        self._optimizer = optax.chain(
            optax.add_decayed_weights(weight_decay), optax.trace(decay=momentum)
        )
        statistics = _statistics(model)
        parameters = {n: v for n, v in name_parameters(model).items() if n not in statistics}
        momentum, steps = self._optimizer.init(parameters), jnp.zeros((), jnp.int32)
        self._state = _State(parameters, momentum, statistics, steps)
        self._key = jax.random.key(seed)
        self._compiled: dict[LossFunction, Callable[..., Any]] = {}

    @property
    def model(self) -> Any:
        return replace_parameters(self._start, self._state.parameters | self._state.statistics)

    def _step(
        self,
        loss: LossFunction,
        state: _State,
        x: Array,
        y: Array,
        *points: Array,
        lr: Any,
        clip: Any,
    ) -> tuple[Any, tuple[Array, ...], Array]:
        parameters, momentum, old_statistics, steps = state

        def total(parameters: dict[str, Array]) -> tuple[Array, tuple[Losses, dict[str, Array]]]:
            model = replace_parameters(self._start, parameters | old_statistics)
            forward = _training_mode(model, jax.random.fold_in(self._key, steps))
            losses = loss(forward, model, x, y, *points)
            return losses.total, (losses, _statistics(model))

        gradients, (losses, statistics) = jax.grad(total, has_aux=True)(parameters)
        norm = optax.tree.norm(gradients)
        scale = jnp.minimum(1.0, clip / jnp.where(norm > 0, norm, 1.0))
        gradients = optax.tree.scale(scale, gradients)
        updates, momentum = self._optimizer.update(gradients, momentum, parameters)
        updated = jax.tree.map(lambda p, update: p - lr * update, parameters, updates)
        is_finite = jnp.isfinite(losses.total) & jnp.isfinite(norm)
        new = _State(updated, momentum, statistics, steps + 1)
        state = jax.tree.map(partial(jnp.where, is_finite), new, state)
        return state, (*losses, norm), is_finite

    def step(
        self, loss: LossFunction, x: Array, y: Any, *points: Array, lr: float, clip: float
    ) -> StepResult | None:
        if loss not in self._compiled:
            self._compiled[loss] = jax.jit(partial(self._step, loss))
        step = self._compiled[loss]
        self._state, terms, is_finite = step(self._state, x, y, *points, lr=lr, clip=clip)
        return StepResult(*map(float, terms)) if bool(is_finite) else None

    def update_weights(self, to: Callable[[Mapping[str, Array]], Mapping[str, Array]]) -> None:
        parameters = self._state.parameters
        updated = to({name: to_torch_layout(name, value) for name, value in parameters.items()})
        own = {name: from_torch_layout(name, value) for name, value in updated.items()}
        self._state = self._state._replace(parameters=parameters | own)

    def state(self) -> dict[str, npt.NDArray[Any]]:
        parameters, momentum, statistics, steps = self._state
        weights = parameters | statistics
        state = {f"weights.{name}": np.array(value) for name, value in weights.items()}
        state["random.steps"] = np.array(steps)
        for name, value in momentum[1].trace.items():
            state[f"momentum.{name}"] = np.array(value)
        return state

    def restore(self, state: Arrays) -> None:
        parts: dict[str, dict[str, Array]] = {"weights": {}, "momentum": {}, "random": {}}
        for key, value in state.items():
            part, _, name = key.partition(".")
            parts[part][name] = jnp.asarray(value)
        weights = parts["weights"]
        parameters = {name: weights[name] for name in self._state.parameters}
        statistics = {name: weights[name] for name in self._state.statistics}
        decay, trace = self._optimizer.init(parameters)
        values = {name: parts["momentum"].get(name, zero) for name, zero in trace.trace.items()}
        momentum = (decay, trace._replace(trace=values))
        self._state = _State(parameters, momentum, statistics, parts["random"]["steps"])
