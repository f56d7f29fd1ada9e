"""What training needs natively in JAX: weights, and one step by optax."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from functools import partial
from itertools import count
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
import optax
from einops import rearrange
from jax import Array, lax

from deepdefense.seam.training import Losses, LossFunction, StepResult, TrainingBackend
from deepdefense.seam.validation import find_device
from deepdefense.zoo import COUNTER, Network
from deepdefense_jax.models import is_parameter
from deepdefense_jax.networks import ZooModel

__all__ = ["JaxTraining", "ZooModel"]

Arrays = Mapping[str, npt.NDArray[Any]]


def _name(path: Any) -> str:
    return jax.tree_util.keystr(path, simple=True, separator=".")


def _parameters(model: Any) -> dict[str, Array]:
    """The inexact arrays of a pytree by the names of their paths."""
    paths, _ = jax.tree_util.tree_flatten_with_path(model)
    return {_name(path): leaf for path, leaf in paths if is_parameter(leaf)}


def _is_flax_kernel(name: str, value: Array) -> bool:
    """Return whether flax lays out this parameter: it has [... i o] for PyTorch's [o i ...]."""
    return value.ndim > 1 and "kernel" in name.split(".")


def _to_torch(name: str, value: Array) -> Array:
    """Return a parameter in PyTorch's layout."""
    return rearrange(value, "... i o -> o i ...") if _is_flax_kernel(name, value) else value


def _from_torch(name: str, value: Array) -> Array:
    """Return a parameter in its library's layout, from PyTorch's."""
    return rearrange(value, "o i ... -> ... i o") if _is_flax_kernel(name, value) else value


def _with(model: Any, parameters: Mapping[str, Array]) -> Any:
    """The same pytree with those arrays in their places."""
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: parameters[_name(path)] if is_parameter(leaf) else leaf, model
    )


def _statistics(model: Any) -> dict[str, Array]:
    """What training keeps but does not train: of the zoo's networks, the only ones that tell."""
    return model.statistics if isinstance(model, ZooModel) else {}


def _training(model: Any, key: Array) -> Callable[[Array], Array]:
    """The model as it trains: each call draws anew, and moves the statistics of the model itself.

    As PyTorch's do, so that the penalty, which asks the model itself, has them as they are then.
    """
    if not isinstance(model, ZooModel):
        return model  # type: ignore[no-any-return]
    calls = count()

    def forward(x: Array) -> Array:
        logits, moved = model.training(x, jax.random.fold_in(key, next(calls)))
        model.weights.update(moved)
        return logits

    return forward


class _State(NamedTuple):
    """What training goes on from."""

    parameters: dict[str, Array]
    momentum: Any
    statistics: dict[str, Array]
    steps: Array  # that were taken: each draws its own dropout


class _Trainer:
    """SGD on the parameters of one pytree; each loss is compiled once for each shape."""

    def __init__(self, model: Any, momentum: float, weight_decay: float, seed: int) -> None:
        self._start = model
        self._optimizer = optax.chain(
            optax.add_decayed_weights(weight_decay), optax.trace(decay=momentum)
        )
        statistics = _statistics(model)
        parameters = {n: v for n, v in _parameters(model).items() if n not in statistics}
        momentum, steps = self._optimizer.init(parameters), jnp.zeros((), jnp.int32)
        self._state = _State(parameters, momentum, statistics, steps)
        self._key = jax.random.key(seed)
        self._compiled: dict[LossFunction, Callable[..., Any]] = {}

    @property
    def model(self) -> Any:
        return _with(self._start, self._state.parameters | self._state.statistics)

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
        parameters, momentum, statistics, steps = state

        def total(parameters: dict[str, Array]) -> tuple[Array, tuple[Losses, dict[str, Array]]]:
            model = _with(self._start, parameters | statistics)
            forward = _training(model, jax.random.fold_in(self._key, steps))
            found = loss(forward, model, x, y, *points)
            return found.total, (found, _statistics(model))

        gradients, (found, kept) = jax.grad(total, has_aux=True)(parameters)
        size = optax.tree.norm(gradients)
        shorter = jnp.minimum(1.0, clip / jnp.where(size > 0, size, 1.0))
        gradients = optax.tree.scale(shorter, gradients)
        moves, momentum = self._optimizer.update(gradients, momentum, parameters)
        moved = jax.tree.map(lambda p, move: p - lr * move, parameters, moves)
        usable = jnp.isfinite(found.total) & jnp.isfinite(size)
        after = _State(moved, momentum, kept, steps + 1)
        state = jax.tree.map(partial(jnp.where, usable), after, state)
        return state, (*found, size), usable

    def step(
        self, loss: LossFunction, x: Array, y: Any, *points: Array, lr: float, clip: float
    ) -> StepResult | None:
        if loss not in self._compiled:
            self._compiled[loss] = jax.jit(partial(self._step, loss))
        step = self._compiled[loss]
        self._state, found, usable = step(self._state, x, y, *points, lr=lr, clip=clip)
        return StepResult(*map(float, found)) if bool(usable) else None

    def update_weights(self, to: Callable[[Mapping[str, Array]], Mapping[str, Array]]) -> None:
        parameters = self._state.parameters
        updated = to({name: _to_torch(name, value) for name, value in parameters.items()})
        own = {name: _from_torch(name, value) for name, value in updated.items()}
        self._state = self._state._replace(parameters=parameters | own)

    def state(self) -> dict[str, npt.NDArray[Any]]:
        parameters, momentum, statistics, steps = self._state
        weights = parameters | statistics
        kept = {f"weights.{name}": np.array(value) for name, value in weights.items()}
        kept["random.steps"] = np.array(steps)
        for name, value in momentum[1].trace.items():
            kept[f"momentum.{name}"] = np.array(value)
        return kept

    def restore(self, state: Arrays) -> None:
        parts: dict[str, dict[str, Array]] = {"weights": {}, "momentum": {}, "random": {}}
        for key, value in state.items():
            part, _, name = key.partition(".")
            parts[part][name] = jnp.asarray(value)
        weights = parts["weights"]
        parameters = {name: weights[name] for name in self._state.parameters}
        statistics = {name: weights[name] for name in self._state.statistics}
        decay, trace = self._optimizer.init(parameters)
        moving = {name: parts["momentum"].get(name, zero) for name, zero in trace.trace.items()}
        momentum = (decay, trace._replace(trace=moving))
        self._state = _State(parameters, momentum, statistics, parts["random"]["steps"])


def _list_devices(kind: str) -> list[jax.Device]:
    try:
        return jax.devices(kind)
    except RuntimeError:  # there is no platform of this name
        return []


class JaxTraining(TrainingBackend):
    """The training side of the JAX backend.

    A model is a pytree that can be called: one of the zoo, an equinox module, or
    ``jax.tree_util.Partial(apply, parameters)``. All its inexact arrays are trained, but for the
    running statistics of the zoo's, which move as PyTorch's do.
    """

    @contextmanager
    def on_device(self, device: str | None) -> Iterator[None]:
        chosen = device and jax.default_device(find_device(device, _list_devices))
        with chosen or nullcontext():
            yield

    def build(self, network: Network, weights: Arrays) -> ZooModel:
        # Not the counters of batches: integers, which nothing here depends on.
        own = {n: jnp.asarray(v) for n, v in weights.items() if not n.endswith(COUNTER)}
        return ZooModel(network, own)

    def copy(self, model: Any) -> Any:
        return model  # a pytree is never changed

    def weights(self, model: Any) -> dict[str, npt.NDArray[Any]]:
        return {name: np.array(value) for name, value in _parameters(model).items()}

    def load(self, model: Any, weights: Arrays) -> Any:
        own = _parameters(model)
        return _with(model, {n: jnp.asarray(weights[n], dtype=v.dtype) for n, v in own.items()})

    def freeze_except(self, model: Any, layer: str) -> Callable[[Array], Array]:
        own = _parameters(model).items()
        held: Callable[[Array], Array] = _with(
            model,
            {n: v if n.rpartition(".")[0] == layer else lax.stop_gradient(v) for n, v in own},
        )
        return held

    def trainer(self, model: Any, *, momentum: float, weight_decay: float, seed: int) -> _Trainer:
        return _Trainer(model, momentum, weight_decay, seed)

    @contextmanager
    def fixed_seed(self, *seed: int) -> Iterator[None]:
        yield  # JAX has no global randomness
