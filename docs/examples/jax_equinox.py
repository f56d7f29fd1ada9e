"""Add the Deep Defense penalty to a jitted loss with JAX, optax and equinox."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import optax

import deepdefense as dd


def main() -> tuple[dd.Report, dd.Report]:
    """Train without the penalty, then with it; return the evaluation report after each stage."""
    centre_key, blob_key, noise_key, network_key = jax.random.split(jax.random.key(0), 4)
    # The data are forty Gaussian blobs, ten for each of the four classes.
    centres = jax.random.normal(centre_key, (40, 10), jnp.float32)
    blob = jax.random.randint(blob_key, (768,), 0, 40)
    noise = jax.random.normal(noise_key, (768, 10), jnp.float32)
    examples, labels = centres[blob] + 0.15 * noise, blob % 4
    x, y = examples[:512], labels[:512]

    model = eqx.nn.MLP(10, 4, width_size=64, depth=1, dtype=jnp.float32, key=network_key)
    defense = dd.DeepDefense(c=5.0, steps=3)  # c * rho_2 should be about 1 to 6
    optimizer = optax.adam(0.01)
    state = optimizer.init(eqx.filter(model, eqx.is_array))

    def loss(model: eqx.nn.MLP, hardening: bool) -> jax.Array:
        batched = jax.vmap(model)  # the module accepts one example, the penalty needs a batch
        entropy = optax.softmax_cross_entropy_with_integer_labels(batched(x), y).mean()
        return entropy + defense(batched, x, y).mean() if hardening else entropy

    @eqx.filter_jit
    def step(model: eqx.nn.MLP, state: optax.OptState, hardening: bool):
        updates, state = optimizer.update(eqx.filter_grad(loss)(model, hardening), state)
        return eqx.apply_updates(model, updates), state

    reports = []
    for hardening in (False, True):
        for _ in range(100):
            model, state = step(model, state, hardening)
        reports.append(dd.evaluate(jax.jit(jax.vmap(model)), examples[512:], labels[512:]))

    for name, report in zip(("before", "after"), reports, strict=True):
        print(f"{name:>6}: accuracy {report.accuracy:.3f}, rho_2 {report.rho_2:.3f}")
    return reports[0], reports[1]


if __name__ == "__main__":
    main()
