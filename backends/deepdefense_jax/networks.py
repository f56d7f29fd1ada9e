"""Networks of the zoo in JAX, as instances of the pytree `ZooModel`."""

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


def _pad(x: Array, padding: int, value: float = 0.0) -> Array:
    """Pad images [b c h w] with `value`, by `padding` pixels on each side."""
    sides = ((0, 0), (0, 0), (padding, padding), (padding, padding))
    return jnp.pad(x, sides, constant_values=value) if padding else x


def _every(stride: int, start: int, count: int) -> slice:
    """Return the slice that selects the `count` indices start, start + stride, ..."""
    return slice(start, start + stride * (count - 1) + 1, stride)


def _windows(x: Array, size: int, stride: int) -> Array:
    """Cut images [b c h w] into windows of size x size pixels, flattened: [b c h' w' size*size].

    Windows start every `stride` pixels. Those that would extend beyond the image are left out.
    """
    if stride == size:  # windows do not overlap, so a reshape without copies is enough
        height, width = (length // size * size for length in x.shape[2:])
        x = x[:, :, :height, :width]
        return rearrange(x, "b c (h s) (w t) -> b c h w (s t)", s=size, t=size)
    height, width = ((length - size) // stride + 1 for length in x.shape[2:])
    offsets = product(range(size), repeat=2)
    entries = [x[:, :, _every(stride, s, height), _every(stride, t, width)] for s, t in offsets]
    return jnp.stack(entries, -1)


def _convolve(x: Array, kernel: Array, padding: int, stride: int) -> Array:
    """Convolve images with a kernel, by one matrix product for each row of the kernel.

    [b i h w] * [o i s s] -> [b o h' w'], for i input and o output channels. XLA's own convolution
    is very slow inside loops on CPUs (jax-ml/jax issue 12868), and every attack is a loop.
    """
    size = kernel.shape[2]
    x = rearrange(_pad(x, padding), "b i h w -> b h w i")
    height, width = ((length - size) // stride + 1 for length in x.shape[1:3])
    strips = jnp.concatenate([x[:, :, _every(stride, s, width)] for s in range(size)], -1)
    rows = rearrange(kernel, "o i r s -> r (s i) o")
    products = [strips[:, _every(stride, r, height)] @ rows[r] for r in range(size)]
    return rearrange(sum(products[1:], products[0]), "b h w o -> b o h w")


def _along_features(values: Array, x: Array) -> Array:
    """Reshape one value per feature [c] to [1 c 1 ...], with as many axes as `x`."""
    return jnp.reshape(values, (1, -1) + (1,) * (x.ndim - 2))


class _Pass:
    """One forward pass of a batch through a network.

    With a `key` for dropout's random draws, the pass is in training mode, and `statistics` collects
    batch norm's updated running statistics. Without a key, the pass is in inference mode.
    """

    def __init__(self, weights: Mapping[str, Array], key: Array | None = None) -> None:
        self._weights, self._key = weights, key
        self.statistics: dict[str, Array] = {}

    def chain(self, layers: tuple[Layer, ...], x: Array, prefix: str = "") -> Array:
        """Apply the layers one after another; `prefix` precedes the names of their weights."""
        for layer in layers:
            x = self._apply(layer, x, prefix)
        return x

    def _apply(self, layer: Layer, x: Array, prefix: str) -> Array:
        match layer:
            case Conv(name, _, _, _, padding, stride, bias):
                mapped = _convolve(x, self._weights[f"{prefix}{name}.weight"], padding, stride)
                if not bias:
                    return mapped
                return mapped + _along_features(self._weights[f"{prefix}{name}.bias"], mapped)
            case Linear(name):
                mapped = x @ self._weights[f"{prefix}{name}.weight"].T
                return mapped + _along_features(self._weights[f"{prefix}{name}.bias"], mapped)
            case BatchNorm(name):
                return self._normalise(layer, x, f"{prefix}{name}")
            case Dropout(rate):
                return self._drop(x, rate)
            case MaxPool(size, _, padding):
                windows = _windows(_pad(x, padding, -jnp.inf), size, layer.step)
                # The gradient of a window goes to its first maximum, as in the other frameworks.
                # We avoid XLA's `reduce_window`, because its second derivatives are slower on CPUs.
                first = jax.nn.one_hot(jnp.argmax(windows, -1), size * size, dtype=bool)
                return jnp.where(first, windows, jnp.zeros_like(windows)).sum(-1)
            case AveragePool(size, _, padding):
                return _windows(_pad(x, padding), size, layer.step).mean(-1)
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

    def _normalise(self, layer: BatchNorm, x: Array, name: str) -> Array:
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
            # As in PyTorch, update the running variance with the unbiased variance of the batch,
            # but normalise the batch with the biased variance.
            new = (mean, variance * (count / (count - 1)))
            for own, before, after in zip(running, old, new, strict=True):
                step = layer.momentum * (lax.stop_gradient(after) - before)
                self.statistics[own] = before + step
        scale = self._weights[f"{name}.weight"] * lax.rsqrt(variance + layer.eps)
        shift = self._weights[f"{name}.bias"] - mean * scale
        return x * _along_features(scale, x) + _along_features(shift, x)

    def _drop(self, x: Array, rate: float) -> Array:
        if self._key is None:
            return x
        self._key, key = jax.random.split(self._key)
        keep = jax.random.bernoulli(key, 1 - rate, x.shape)
        return jnp.where(keep, x / (1 - rate), jnp.zeros_like(x))


@jax.tree_util.register_pytree_with_keys_class
class ZooModel:
    """A network of the zoo as a pytree of weights. A call computes logits in inference mode.

    `weights` maps PyTorch's names to arrays in PyTorch's layout. It includes batch norm's running
    statistics, which weight decay must not change.
    """

    def __init__(self, network: Network, weights: Mapping[str, Array]) -> None:
        self.network, self.weights = network, dict(weights)

    def __call__(self, x: Array) -> Array:
        """Return the logits [b k] of a batch [b ...]."""
        return _Pass(self.weights).chain(self.network.layers, x)

    def training(self, x: Array, key: Array) -> tuple[Array, dict[str, Array]]:
        """Return the logits [b k] of a batch [b ...] in training mode, and updated statistics.

        Dropout draws from `key`. Batch norm uses the mean and variance of the batch. The second
        result has its updated running statistics by name.
        """
        run = _Pass(self.weights, key)
        return run.chain(self.network.layers, x), run.statistics

    @property
    def statistics(self) -> dict[str, Array]:
        """The running statistics among the weights, by name."""
        return {name: value for name, value in self.weights.items() if is_statistic(name)}

    def tree_flatten_with_keys(self) -> tuple[list[tuple[Any, Array]], Any]:
        """Return the weights with their names as keys, and the static part (network and names)."""
        keyed = [(jax.tree_util.DictKey(name), value) for name, value in self.weights.items()]
        return keyed, (self.network, tuple(self.weights))

    @classmethod
    def tree_unflatten(cls, rest: Any, values: Any) -> ZooModel:
        """Return a model from the static part (network and names) and the values of the weights."""
        network, names = rest
        return cls(network, dict(zip(names, values, strict=True)))
