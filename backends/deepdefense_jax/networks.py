"""Networks of the zoo in JAX: pytrees of weights, interpreted by their descriptions."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product
from typing import Any

import jax
import jax.numpy as jnp
from einops import einsum, rearrange
from jax import Array, lax

from deepdefense.errors import InputError
from deepdefense.zoo import (
    AdaptiveAveragePool,
    AveragePool,
    BatchNorm,
    Block,
    Conv,
    Dropout,
    Flatten,
    Layer,
    Linear,
    MaxPool,
    Network,
    ReLU,
    Residual,
    is_statistic,
)

__all__ = ["ZooModel"]


def _padded(x: Array, padding: int, value: float = 0.0) -> Array:
    """[b c h w] with so many more values on each side of an image."""
    sides = ((0, 0), (0, 0), (padding, padding), (padding, padding))
    return jnp.pad(x, sides, constant_values=value) if padding else x


def _every(stride: int, start: int, count: int) -> slice:
    """The places start, start + stride, ..., so many of them."""
    return slice(start, start + stride * (count - 1) + 1, stride)


def _windows(x: Array, size: int, stride: int) -> Array:
    """Windows of size x size: [b c h w] -> [b c h' w' s]; what is left over is dropped."""
    if stride == size:  # a reshape, where the general case copies
        height, width = (length // size * size for length in x.shape[2:])
        x = x[:, :, :height, :width]
        return rearrange(x, "b c (h s) (w t) -> b c h w (s t)", s=size, t=size)
    height, width = ((length - size) // stride + 1 for length in x.shape[2:])
    places = product(range(size), repeat=2)
    each = [x[:, :, _every(stride, s, height), _every(stride, t, width)] for s, t in places]
    return jnp.stack(each, -1)


def _convolved(x: Array, kernel: Array, padding: int, stride: int) -> Array:
    """[b i h w] * [o i s s] -> [b o h' w'], as one matrix product for each row of the kernel.

    XLA's own convolution takes up to a hundred times as long inside of a loop on CPUs
    (jax-ml/jax issue 12868), and every attack is a loop.
    """
    size = kernel.shape[2]
    x = rearrange(_padded(x, padding), "b i h w -> b h w i")
    height, width = ((length - size) // stride + 1 for length in x.shape[1:3])
    strips = jnp.concatenate([x[:, :, _every(stride, s, width)] for s in range(size)], -1)
    rows = rearrange(kernel, "o i r s -> r (s i) o")
    products = [strips[:, _every(stride, r, height)] @ rows[r] for r in range(size)]
    return rearrange(sum(products[1:], products[0]), "b h w o -> b o h w")


def _by_feature(values: Array, x: Array) -> Array:
    """[c] -> [1 c 1 ...], of the rank of x."""
    return jnp.reshape(values, (1, -1) + (1,) * (x.ndim - 2))


class _Pass:
    """One pass of a batch through a network: in training if there is a key to draw dropout from.

    `moved` gathers what the running statistics become.
    """

    def __init__(self, weights: Mapping[str, Array], key: Array | None = None) -> None:
        self._weights, self._key = weights, key
        self.moved: dict[str, Array] = {}

    def chain(self, layers: tuple[Layer, ...], x: Array, prefix: str = "") -> Array:
        """The layers one after another; `prefix` comes before the names of their weights."""
        for layer in layers:
            x = self._layer(layer, x, prefix)
        return x

    def _layer(self, layer: Layer, x: Array, prefix: str) -> Array:
        match layer:
            case Conv(name, _, _, _, padding, stride, bias):
                mapped = _convolved(x, self._weights[f"{prefix}{name}.weight"], padding, stride)
                if not bias:
                    return mapped
                return mapped + _by_feature(self._weights[f"{prefix}{name}.bias"], mapped)
            case Linear(name):
                mapped = x @ self._weights[f"{prefix}{name}.weight"].T
                return mapped + _by_feature(self._weights[f"{prefix}{name}.bias"], mapped)
            case BatchNorm(name):
                return self._normalised(layer, x, f"{prefix}{name}")
            case Dropout(rate):
                return self._dropped(x, rate)
            case MaxPool(size, _, padding):
                windows = _windows(_padded(x, padding, -jnp.inf), size, layer.step)
                # The first of equals, as the other frameworks choose; far faster to differentiate
                # twice on CPUs than XLA's window reduction.
                first = jax.nn.one_hot(jnp.argmax(windows, -1), size * size, dtype=bool)
                return jnp.where(first, windows, jnp.zeros_like(windows)).sum(-1)
            case AveragePool(size, _, padding):
                return _windows(_padded(x, padding), size, layer.step).mean(-1)
            case AdaptiveAveragePool():
                rows, columns = (jnp.asarray(layer.means(n), x.dtype) for n in x.shape[2:])
                return einsum(x, rows, columns, "b c h w, r h, s w -> b c r s")
            case ReLU():
                return jax.nn.relu(x)
            case Flatten():
                return jnp.reshape(x, (x.shape[0], -1))
            case Block(name, layers):
                return self.chain(layers, x, f"{prefix}{name}.")
            case Residual(name, body, shortcut):
                inner = f"{prefix}{name}."
                return jax.nn.relu(self.chain(body, x, inner) + self.chain(shortcut, x, inner))

    def _normalised(self, layer: BatchNorm, x: Array, name: str) -> Array:
        running = [f"{name}.running_mean", f"{name}.running_var"]
        mean, variance = (lax.stop_gradient(self._weights[own]) for own in running)
        if self._key is not None:
            axes, count = (0, *range(2, x.ndim)), x.size // x.shape[1]
            if count == 1:
                raise InputError(
                    f"batch norm {name} trains on two values or more of each feature, got 1: "
                    "use larger batches"
                )
            old, mean, variance = (mean, variance), x.mean(axes), x.var(axes)
            # As PyTorch has it: the estimate that is kept, and it alone, is the unbiased one.
            new = (mean, variance * (count / (count - 1)))
            for own, before, after in zip(running, old, new, strict=True):
                step = layer.momentum * (lax.stop_gradient(after) - before)
                self.moved[own] = before + step
        scale = self._weights[f"{name}.weight"] * lax.rsqrt(variance + layer.eps)
        shift = self._weights[f"{name}.bias"] - mean * scale
        return x * _by_feature(scale, x) + _by_feature(shift, x)

    def _dropped(self, x: Array, rate: float) -> Array:
        if self._key is None:
            return x
        self._key, key = jax.random.split(self._key)
        kept = jax.random.bernoulli(key, 1 - rate, x.shape)
        return jnp.where(kept, x / (1 - rate), jnp.zeros_like(x))


@jax.tree_util.register_pytree_with_keys_class
class ZooModel:
    """A network of the zoo: a pytree of weights that is called on a batch, in inference mode.

    `weights` maps PyTorch's names to arrays in PyTorch's layout. Batch norm's running statistics
    are among them: their gradient is zero, and an optimizer that decays weights must omit them.
    """

    def __init__(self, network: Network, weights: Mapping[str, Array]) -> None:
        self.network, self.weights = network, dict(weights)

    def __call__(self, x: Array) -> Array:
        """[b ...] -> logits [b k]."""
        return _Pass(self.weights).chain(self.network.layers, x)

    def training(self, x: Array, key: Array) -> tuple[Array, dict[str, Array]]:
        """[b ...] -> logits [b k] in training mode, and what the running statistics become.

        Dropout draws from the key; batch norm takes the batch's own mean and variance.
        """
        run = _Pass(self.weights, key)
        return run.chain(self.network.layers, x), run.moved

    @property
    def statistics(self) -> dict[str, Array]:
        """The weights that are running statistics, by name."""
        return {name: value for name, value in self.weights.items() if is_statistic(name)}

    def tree_flatten_with_keys(self) -> tuple[list[tuple[Any, Array]], Any]:
        """The weights by name, and the rest."""
        keyed = [(jax.tree_util.DictKey(name), value) for name, value in self.weights.items()]
        return keyed, (self.network, tuple(self.weights))

    @classmethod
    def tree_unflatten(cls, rest: Any, values: Any) -> ZooModel:
        """The model with other weights."""
        network, names = rest
        return cls(network, dict(zip(names, values, strict=True)))
