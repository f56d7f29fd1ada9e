"""Add the Deep Defense penalty to a jitted loss with JAX, optax and flax nnx."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import optax
from flax import nnx

import deepdefense as dd


class Network(nnx.Module):
    """A network of two dense layers, with dropout between them during training."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        self.first, self.last = nnx.Linear(10, 64, rngs=rngs), nnx.Linear(64, 4, rngs=rngs)
        self.dropout = nnx.Dropout(0.1, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.last(self.dropout(nnx.relu(self.first(x))))


def main() -> tuple[dd.Report, dd.Report]:
    """Train without the penalty, then with it; return the evaluation report after each stage."""
    centre_key, blob_key, noise_key = jax.random.split(jax.random.key(0), 3)
    # The data are forty Gaussian blobs, ten for each of the four classes.
    centres = jax.random.normal(centre_key, (40, 10), jnp.float32)
    blob = jax.random.randint(blob_key, (768,), 0, 40)
    noise = jax.random.normal(noise_key, (768, 10), jnp.float32)
    examples, labels = centres[blob] + 0.15 * noise, blob % 4
    x, y = examples[:512], labels[:512]

    model = Network(nnx.Rngs(0))
    defense = dd.DeepDefense(c=5.0, steps=3)  # c * rho_2 should be about 1 to 6
    optimizer = nnx.Optimizer(model, optax.adam(0.01), wrt=nnx.Param)

    def loss(model: Network, hardening: bool) -> jax.Array:
        entropy = optax.softmax_cross_entropy_with_integer_labels(model(x), y).mean()
        # Pass the module itself, not a function, so that the penalty can switch dropout off.
        return entropy + defense(model, x, y).mean() if hardening else entropy

    @nnx.jit(static_argnames="hardening")
    def step(model: Network, optimizer: nnx.Optimizer, hardening: bool) -> None:
        gradients = nnx.grad(loss)(model, hardening)
        optimizer.update(model, gradients)

    reports = []
    for hardening in (False, True):
        for _ in range(100):
            step(model, optimizer, hardening=hardening)
        reports.append(dd.evaluate(model, examples[512:], labels[512:]))

    for name, report in zip(("before", "after"), reports, strict=True):
        print(f"{name:>6}: accuracy {report.accuracy:.3f}, rho_2 {report.rho_2:.3f}")
    return reports[0], reports[1]


if __name__ == "__main__":
    main()
