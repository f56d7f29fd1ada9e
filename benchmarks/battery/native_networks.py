"""The networks of the battery in JAX (equinox) and TensorFlow (Keras), and those of the zoo."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from deepdefense.seam.training_contract import TrainingBackend
from deepdefense.zoo import initial_weights, mlp

__all__ = ["make_equinox_gelu_mlp", "make_keras_gelu_mlp", "make_zoo_mlp"]


def make_zoo_mlp(
    backend: TrainingBackend, inputs: int, classes: int, seed: int, width: int = 32
) -> Any:
    """Return the zoo's fully connected network, with the same initial weights in all frameworks.

    It has two hidden layers. Its inputs must be standardised.
    """
    network = replace(mlp((inputs,), classes, hidden=(width, width)), spread="fan-in")
    return backend.build(network, initial_weights(network, seed, 1.0))


def make_equinox_gelu_mlp(inputs: int, classes: int, seed: int, width: int = 64) -> Any:
    """Return an equinox network of two hidden layers with layer norm and GELU."""
    import equinox as eqx
    import jax

    keys = jax.random.split(jax.random.key(seed), 3)
    layers: list[Any] = [eqx.nn.Lambda(jax.numpy.ravel)]
    for size, key in zip((inputs, width), keys[:2], strict=True):
        layers += [
            eqx.nn.Linear(size, width, key=key),
            eqx.nn.LayerNorm(width),
            eqx.nn.Lambda(jax.nn.gelu),
        ]
    layers.append(eqx.nn.Linear(width, classes, key=keys[2]))
    return eqx.filter_vmap(eqx.nn.Sequential(layers))


def make_keras_gelu_mlp(shape: tuple[int, ...], classes: int, seed: int, width: int = 64) -> Any:
    """Return a Keras network of two hidden layers with layer norm and GELU."""
    import keras

    keras.utils.set_random_seed(seed)
    stack: list[Any] = [keras.Input(shape), keras.layers.Flatten()]
    for _ in range(2):
        stack += [
            keras.layers.Dense(width),
            keras.layers.LayerNormalization(),
            keras.layers.Activation("gelu"),
        ]
    return keras.Sequential([*stack, keras.layers.Dense(classes)])
