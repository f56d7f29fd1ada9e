"""The optimizers of the JAX backend: SGD, Adam and AdamW on a model that is a pytree."""

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

from deepdefense.seam.training_contract import Losses, LossFunction, OptimizerName, StepResult
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
    """Return the running statistics of a zoo network, which have no gradient; else nothing."""
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


def _make_optimizer(name: OptimizerName, momentum: float, weight_decay: float) -> Any:
    """Return the optax transformation from a gradient to a step, without the learning rate."""
    decay, adam = optax.add_decayed_weights(weight_decay), optax.scale_by_adam(0.9, 0.999, 1e-8)
    if name == "sgd":
        return optax.chain(decay, optax.trace(decay=momentum))
    return optax.chain(decay, adam) if name == "adam" else optax.chain(adam, decay)


class _State(NamedTuple):
    """All values that change during training; `JaxTrainer.state` saves them."""

    parameters: dict[str, Array]
    optimizer: Any
    statistics: dict[str, Array]
    steps: Array  # the number of steps so far, from which each step derives its dropout key


def _join(path: Any) -> str:
    """Return the name of a leaf of the optimizer's state, such as 1.mu.fc.weight."""
    return jax.tree_util.keystr(path, simple=True, separator=".")


class JaxTrainer:
    """A model that is a pytree, and its optimizer.

    The trainer compiles each loss function once per batch shape. It implements
    `deepdefense.seam.training_contract.Trainer`. `JaxTraining.trainer` makes it.
    """

    def __init__(
        self,
        model: Any,
        optimizer: OptimizerName,
        momentum: float,
        weight_decay: float,
        seed: int,
    ) -> None:
        self._start = model
        self._optimizer = _make_optimizer(optimizer, momentum, weight_decay)
        statistics = _statistics(model)
        parameters = {n: v for n, v in name_parameters(model).items() if n not in statistics}
        steps = jnp.zeros((), jnp.int32)
        self._state = _State(parameters, self._optimizer.init(parameters), statistics, steps)
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
        parameters, optimizer, old_statistics, steps = state

        def total(parameters: dict[str, Array]) -> tuple[Array, tuple[Losses, dict[str, Array]]]:
            model = replace_parameters(self._start, parameters | old_statistics)
            forward = _training_mode(model, jax.random.fold_in(self._key, steps))
            losses = loss(forward, model, x, y, *points)
            return losses.total, (losses, _statistics(model))

        gradients, (losses, statistics) = jax.grad(total, has_aux=True)(parameters)
        norm = optax.tree.norm(gradients)
        scale = jnp.minimum(1.0, clip / jnp.where(norm > 0, norm, 1.0))
        gradients = optax.tree.scale(scale, gradients)
        # optax takes powers of floats by whole numbers, which JAX's strict promotion forbids.
        with jax.numpy_dtype_promotion("standard"):
            updates, optimizer = self._optimizer.update(gradients, optimizer, parameters)
        updated = jax.tree.map(lambda p, update: p - lr * update, parameters, updates)
        is_finite = jnp.isfinite(losses.total) & jnp.isfinite(norm)
        new = _State(updated, optimizer, statistics, steps + 1)
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
        parameters, optimizer, statistics, steps = self._state
        weights = parameters | statistics
        state = {f"weights.{name}": np.array(value) for name, value in weights.items()}
        state["random.steps"] = np.array(steps)
        for path, value in jax.tree_util.tree_leaves_with_path(optimizer):
            state[f"optimizer.{_join(path)}"] = np.array(value)
        return state

    def restore(self, state: Arrays) -> None:
        def read(path: Any, _: Array) -> Array:
            return jnp.asarray(state[f"optimizer.{_join(path)}"])

        old = self._state
        parameters = {name: jnp.asarray(state[f"weights.{name}"]) for name in old.parameters}
        statistics = {name: jnp.asarray(state[f"weights.{name}"]) for name in old.statistics}
        optimizer = jax.tree_util.tree_map_with_path(read, old.optimizer)
        steps = jnp.asarray(state["random.steps"])
        self._state = _State(parameters, optimizer, statistics, steps)
