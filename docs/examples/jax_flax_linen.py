"""Add the Deep Defense penalty to a jitted loss with JAX, optax and flax linen."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import linen

import deepdefense as dd


class Network(linen.Module):
    """A network of two dense layers, with dropout between them during training."""

    @linen.compact
    def __call__(self, x: jax.Array, training: bool = False) -> jax.Array:
        x = linen.relu(linen.Dense(64)(x))
        x = linen.Dropout(0.1, deterministic=not training)(x)
        return linen.Dense(4)(x)


def main() -> tuple[dd.Report, dd.Report]:
    """Train without the penalty, then with it; return the evaluation report after each stage."""
    centre_key, blob_key, noise_key, key = jax.random.split(jax.random.key(0), 4)
    # The data are forty Gaussian blobs, ten for each of the four classes.
    centres = jax.random.normal(centre_key, (40, 10), jnp.float32)
    blob = jax.random.randint(blob_key, (768,), 0, 40)
    noise = jax.random.normal(noise_key, (768, 10), jnp.float32)
    examples, labels = centres[blob] + 0.15 * noise, blob % 4
    x, y = examples[:512], labels[:512]

    network = Network()
    parameters = network.init(key, x)
    defense = dd.DeepDefense(c=5.0, steps=3)  # c * rho_2 should be about 1 to 6
    optimizer = optax.adam(0.01)
    state = optimizer.init(parameters)

    def loss(parameters: Any, key: jax.Array, hardening: bool) -> jax.Array:
        logits = network.apply(parameters, x, training=True, rngs={"dropout": key})
        entropy = optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()
        # The penalty needs the network in inference mode, without dropout.
        predict = partial(network.apply, parameters)
        return entropy + defense(predict, x, y).mean() if hardening else entropy

    @partial(jax.jit, static_argnames="hardening")
    def step(parameters: Any, state: Any, key: jax.Array, hardening: bool):
        updates, state = optimizer.update(jax.grad(loss)(parameters, key, hardening), state)
        return optax.apply_updates(parameters, updates), state

    reports = []
    for hardening in (False, True):
        for i in range(100):
            parameters, state = step(parameters, state, jax.random.fold_in(key, i), hardening)
        predict = partial(network.apply, parameters)
        reports.append(dd.evaluate(jax.jit(predict), examples[512:], labels[512:]))

    for name, report in zip(("before", "after"), reports, strict=True):
        print(f"{name:>6}: accuracy {report.accuracy:.3f}, rho_2 {report.rho_2:.3f}")
    return reports[0], reports[1]


if __name__ == "__main__":
    main()
