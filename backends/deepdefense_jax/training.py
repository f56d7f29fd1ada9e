"""What training needs natively in JAX: networks of the zoo, weights, and one step by optax."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
import optax
from einops import rearrange
from jax import Array

from deepdefense.training import Losses, Recipe
from deepdefense.zoo import AveragePool, Conv, Flatten, Layer, Linear, MaxPool, Network, ReLU
from deepdefense_jax.models import is_parameter

__all__ = ["JaxTraining", "ZooModel"]

Arrays = Mapping[str, npt.NDArray[Any]]
LossFunction = Callable[[Any, Any, Array, Any], Losses]


def _windows(x: Array, size: int) -> Array:
    """Windows without overlap: [b c h w] -> [b c h' w' s]; what is left over is dropped."""
    height, width = (length // size * size for length in x.shape[2:])
    x = x[:, :, :height, :width]
    return rearrange(x, "b c (h s) (w t) -> b c h w (s t)", s=size, t=size)


def _convolved(x: Array, kernel: Array, padding: int) -> Array:
    """[b i h w] * [o i s s] -> [b o h' w'], as one matrix product for each row of the kernel.

    XLA's own convolution takes up to a hundred times as long inside of a loop on CPUs
    (jax-ml/jax issue 12868), and every attack is a loop.
    """
    size = kernel.shape[2]
    x = rearrange(x, "b i h w -> b h w i")
    x = jnp.pad(x, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    height, width = (length - size + 1 for length in x.shape[1:3])
    strips = jnp.concatenate([x[:, :, s : s + width] for s in range(size)], -1)
    rows = rearrange(kernel, "o i r s -> r (s i) o")
    products = [strips[:, r : r + height] @ rows[r] for r in range(size)]
    return rearrange(sum(products[1:], products[0]), "b h w o -> b o h w")


def _apply(layer: Layer, weights: Mapping[str, Array], x: Array) -> Array:
    match layer:
        case Conv(name, _, _, _, padding):
            mapped = _convolved(x, weights[f"{name}.weight"], padding)
            return mapped + jnp.reshape(weights[f"{name}.bias"], (1, -1, 1, 1))
        case Linear(name):
            mapped = x @ weights[f"{name}.weight"].T
            return mapped + jnp.reshape(weights[f"{name}.bias"], (1, -1))
        case MaxPool(size):
            windows = _windows(x, size)
            # The first of equals, as the other frameworks choose; far faster to differentiate twice
            # on CPUs than XLA's window reduction.
            first = jax.nn.one_hot(jnp.argmax(windows, -1), size * size, dtype=bool)
            return jnp.where(first, windows, jnp.zeros_like(windows)).sum(-1)
        case AveragePool(size):
            return _windows(x, size).mean(-1)
        case ReLU():
            return jax.nn.relu(x)
        case Flatten():
            return jnp.reshape(x, (x.shape[0], -1))


@jax.tree_util.register_pytree_with_keys_class
class ZooModel:
    """A network of the zoo: a pytree of weights that is called on a batch.

    `weights` maps PyTorch's names to arrays in PyTorch's layout.
    """

    def __init__(self, network: Network, weights: Mapping[str, Array]) -> None:
        self.network, self.weights = network, dict(weights)

    def __call__(self, x: Array) -> Array:
        """[b ...] -> logits [b k]."""
        for layer in self.network.layers:
            x = _apply(layer, self.weights, x)
        return x

    def tree_flatten_with_keys(self) -> tuple[list[tuple[Any, Array]], Any]:
        """The weights by name, and the rest."""
        keyed = [(jax.tree_util.DictKey(name), value) for name, value in self.weights.items()]
        return keyed, (self.network, tuple(self.weights))

    @classmethod
    def tree_unflatten(cls, rest: Any, values: Any) -> ZooModel:
        """The model with other weights."""
        network, names = rest
        return cls(network, dict(zip(names, values, strict=True)))


def _name(path: Any) -> str:
    return jax.tree_util.keystr(path, simple=True, separator=".")


def _parameters(model: Any) -> dict[str, Array]:
    """The inexact arrays of a pytree by the names of their paths."""
    paths, _ = jax.tree_util.tree_flatten_with_path(model)
    return {_name(path): leaf for path, leaf in paths if is_parameter(leaf)}


def _with(model: Any, parameters: Mapping[str, Array]) -> Any:
    """The same pytree with those arrays in their places."""
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: parameters[_name(path)] if is_parameter(leaf) else leaf, model
    )


class _Trainer:
    """SGD on the parameters of one pytree; each loss is compiled once for each shape."""

    def __init__(self, model: Any, recipe: Recipe) -> None:
        self._start = model
        self._optimizer = optax.chain(
            optax.add_decayed_weights(recipe.weight_decay), optax.trace(decay=recipe.momentum)
        )
        self._state = (_parameters(model), self._optimizer.init(_parameters(model)))
        self._compiled: dict[LossFunction, Callable[..., Any]] = {}

    @property
    def model(self) -> Any:
        return _with(self._start, self._state[0])

    def _step(
        self, loss: LossFunction, state: Any, x: Array, y: Array, lr: float
    ) -> tuple[Any, Losses, Array]:
        parameters, momentum = state

        def total(parameters: dict[str, Array]) -> tuple[Array, Losses]:
            model = _with(self._start, parameters)
            found = loss(model, model, x, y)
            return found.total, found

        gradients, found = jax.grad(total, has_aux=True)(parameters)
        moves, momentum = self._optimizer.update(gradients, momentum, parameters)
        moved = jax.tree.map(lambda p, move: p - lr * move, parameters, moves)
        usable = jnp.isfinite(found.total) & jnp.isfinite(optax.tree.norm(gradients))
        state = jax.tree.map(partial(jnp.where, usable), (moved, momentum), state)
        return state, found, usable

    def step(self, loss: LossFunction, x: Array, y: Any, lr: float) -> Losses | None:
        if loss not in self._compiled:
            self._compiled[loss] = jax.jit(partial(self._step, loss))
        self._state, found, usable = self._compiled[loss](self._state, x, np.asarray(y), lr)
        return Losses(*map(float, found)) if bool(usable) else None

    def state(self) -> dict[str, npt.NDArray[Any]]:
        parameters, momentum = self._state
        kept = {f"weights.{name}": np.array(value) for name, value in parameters.items()}
        for name, value in momentum[1].trace.items():
            kept[f"momentum.{name}"] = np.array(value)
        return kept

    def restore(self, state: Arrays) -> None:
        parts: dict[str, dict[str, Array]] = {"weights": {}, "momentum": {}}
        for key, value in state.items():
            part, _, name = key.partition(".")
            parts[part][name] = jnp.asarray(value)
        parameters = {name: parts["weights"][name] for name in self._state[0]}
        decay, trace = self._optimizer.init(parameters)
        moving = {name: parts["momentum"].get(name, zero) for name, zero in trace.trace.items()}
        self._state = (parameters, (decay, trace._replace(trace=moving)))


class JaxTraining:
    """The training side of the JAX backend.

    A model is a pytree that can be called: one of the zoo, an equinox module, or
    ``jax.tree_util.Partial(apply, parameters)``. All its inexact arrays are trained.
    """

    def build(self, network: Network, weights: Arrays) -> ZooModel:
        return ZooModel(network, {name: jnp.asarray(value) for name, value in weights.items()})

    def copy(self, model: Any) -> Any:
        return model  # a pytree is never changed

    def weights(self, model: Any) -> dict[str, npt.NDArray[Any]]:
        return {name: np.array(value) for name, value in _parameters(model).items()}

    def load(self, model: Any, weights: Arrays) -> Any:
        own = _parameters(model)
        return _with(model, {n: jnp.asarray(weights[n], dtype=v.dtype) for n, v in own.items()})

    def trainer(self, model: Any, recipe: Recipe) -> _Trainer:
        return _Trainer(model, recipe)

    @contextmanager
    def seeded(self, *seed: int) -> Iterator[None]:
        yield  # JAX has no global randomness
