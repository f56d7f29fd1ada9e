"""Tests of JAX: its transformations, and training loops with equinox, flax and optax."""

from __future__ import annotations

import subprocess
import sys
from functools import partial
from typing import Any

import numpy as np
import pytest

import deepdefense as dd

jax = pytest.importorskip("jax", reason="JAX is not installed")
import jax.numpy as jnp  # noqa: E402 - after the check that there is a jax

pytestmark = pytest.mark.only("jax")

DEFENSES = [
    pytest.param(dd.DeepDefense(lam=2.0, c=2.0, d=1.0, steps=3, gradient=gradient), id=gradient)
    for gradient in ("unrolled", "implicit")
] + [pytest.param(dd.DeepDefense.fast(lam=2.0, c=2.0, d=1.0), id="fast")]
Parameters = dict[str, Any]


def draw_parameters(seed: int = 0) -> Parameters:
    rng = np.random.default_rng(seed)
    shapes = {"w1": (4, 8), "b1": (1, 8), "w2": (8, 3), "b2": (1, 3)}
    return {name: jnp.asarray(rng.normal(size=shape)) for name, shape in shapes.items()}


def apply(weights: Parameters, x: Any) -> Any:
    hidden = jnp.tanh(jnp.reshape(x, (-1, 4)) @ weights["w1"] + weights["b1"])
    return hidden @ weights["w2"] + weights["b2"]


def draw_batch() -> tuple[Any, Any]:
    rng = np.random.default_rng(1)
    return jnp.asarray(rng.normal(size=(6, 2, 2))), jnp.asarray(rng.integers(0, 3, 6))


def compute_objective(defense: dd.DeepDefense, weights: Parameters, x: Any, y: Any) -> Any:
    return defense.objective(partial(apply, weights), x, y)


def assert_close(actual: Any, expected: Any, tolerance: float = 1e-9) -> None:
    for one, other in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(one, other, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("defense", DEFENSES)
def test_jit_changes_neither_value_nor_gradient(defense: dd.DeepDefense) -> None:
    x, y = draw_batch()
    weights = draw_parameters()
    eager = jax.value_and_grad(partial(compute_objective, defense))(weights, x, y)
    compiled = jax.jit(jax.value_and_grad(partial(compute_objective, defense)))(weights, x, y)
    assert_close(compiled, eager)
    assert float(eager[0]) == pytest.approx(float(compute_objective(defense, weights, x, y)))
    assert all(bool(jnp.abs(leaf).sum() > 0) for leaf in jax.tree.leaves(eager[1]))


@pytest.mark.parametrize("defense", DEFENSES)
def test_vmap_over_seeds_trains_many_networks_at_once(defense: dd.DeepDefense) -> None:
    x, y = draw_batch()
    each = [draw_parameters(seed) for seed in range(3)]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *each)
    gradient = jax.grad(partial(compute_objective, defense))
    together = jax.jit(jax.vmap(gradient, in_axes=(0, None, None)))(stacked, x, y)
    for i, weights in enumerate(each):
        assert_close(jax.tree.map(lambda leaf, i=i: leaf[i], together), gradient(weights, x, y))


@pytest.mark.parametrize("defense", DEFENSES)
def test_checkpoint_changes_no_gradient(defense: dd.DeepDefense) -> None:
    x, y = draw_batch()
    plain = jax.grad(partial(compute_objective, defense))
    saving = jax.jit(jax.grad(jax.checkpoint(partial(compute_objective, defense))))
    assert_close(saving(draw_parameters(), x, y), plain(draw_parameters(), x, y))


def test_jit_does_not_change_deepfool_which_has_no_gradient() -> None:
    x, y = draw_batch()
    weights = draw_parameters()
    attack = partial(dd.deepfool, partial(apply, weights), p=3.0)
    assert_close(jax.jit(attack)(x, y), attack(x, y))

    def sum_perturbations(weights: Parameters) -> Any:
        return jnp.abs(dd.deepfool(partial(apply, weights), x).delta).sum()

    for leaf in jax.tree.leaves(jax.jit(jax.grad(sum_perturbations))(weights)):
        np.testing.assert_array_equal(leaf, 0)


def test_measurements_use_full_precision_and_restore_the_setting() -> None:
    seen = []

    def model(x: Any) -> Any:
        seen.append(jax.config.jax_default_matmul_precision)
        return x @ jnp.eye(3)

    with jax.default_matmul_precision("tensorfloat32"):
        dd.fgs_accuracy(model, jnp.eye(3), jnp.arange(3), [0.1])
        assert jax.config.jax_default_matmul_precision == "tensorfloat32"
    assert set(seen) == {"highest"}


def test_single_precision_without_x64() -> None:
    """JAX computes in its default types, float32 and int32, and raises on any type promotion."""
    code = """
import jax, jax.numpy as jnp, numpy as np
import deepdefense as dd
assert not jax.config.jax_enable_x64
rng = np.random.default_rng(0)
w = jnp.asarray(rng.normal(size=(4, 3)))
x, y = jnp.asarray(rng.normal(size=(5, 4))), jnp.array([0, 1, 2, 0, 1])
exact = (dd.DeepDefense(c=2.0, steps=3, gradient=gradient) for gradient in ("unrolled", "implicit"))
for defense in (*exact, dd.DeepDefense.fast(c=2.0)):
    f = lambda w: defense.objective(lambda x: x @ w, x, y)
    eager, compiled = jax.grad(f)(w), jax.jit(jax.grad(f))(w)
    assert eager.dtype == jnp.float32
    np.testing.assert_allclose(eager, compiled, rtol=1e-3, atol=1e-4)
result = dd.deepfool(lambda x: x @ w, x)
assert result.delta.dtype == jnp.float32 and bool(result.success.all())
"""
    environment = {
        "JAX_NUMPY_DTYPE_PROMOTION": "strict",
        "JAX_NUMPY_RANK_PROMOTION": "raise",
        "JAX_PLATFORMS": "cpu",
    }
    subprocess.run([sys.executable, "-W", "error", "-c", code], env=environment, check=True)


def compute_plain_objective(defense: dd.DeepDefense, f: Any, x: Any, y: Any) -> float:
    """Return the objective, computed outside of any JAX transformation."""
    return float(defense.objective(f, x, y))


@pytest.mark.parametrize("defense", DEFENSES)
def test_penalty_of_an_equinox_module(defense: dd.DeepDefense) -> None:
    eqx = pytest.importorskip("equinox", reason="equinox is not installed")
    x, y = draw_batch()
    x = jnp.reshape(x, (-1, 4))

    class Network(eqx.Module):
        """A module that maps a batch to logits, with dropout."""

        first: Any
        last: Any
        dropout: Any

        def __call__(self, x: Any, key: Any = None) -> Any:
            hidden = jax.vmap(lambda row: jnp.tanh(self.first(row)))(x)
            return jax.vmap(self.last)(self.dropout(hidden, key=key))

    keys = jax.random.split(jax.random.key(0))
    model = Network(
        eqx.nn.Linear(4, 8, key=keys[0]), eqx.nn.Linear(8, 3, key=keys[1]), eqx.nn.Dropout(0.5)
    )
    inference_model = eqx.nn.inference_mode(model)
    value, gradient = eqx.filter_jit(
        eqx.filter_value_and_grad(lambda model: defense(model, x, y).sum())
    )(model)
    np.testing.assert_allclose(value, float(defense(lambda x: inference_model(x), x, y).sum()))
    weights = {
        "w1": model.first.weight.T,
        "b1": model.first.bias[None],
        "w2": model.last.weight.T,
        "b2": model.last.bias[None],
    }
    expected = jax.grad(lambda w: defense(partial(apply, w), x, y).sum())(weights)
    np.testing.assert_allclose(gradient.first.weight.T, expected["w1"], rtol=1e-7, atol=1e-9)
    np.testing.assert_allclose(gradient.last.bias[None], expected["b2"], rtol=1e-7, atol=1e-9)
    assert not model.dropout.inference  # the penalty left the user's module unchanged


@pytest.mark.parametrize("defense", DEFENSES)
def test_objective_of_a_flax_linen_module(defense: dd.DeepDefense) -> None:
    linen = pytest.importorskip("flax.linen", reason="flax is not installed")
    x, y = draw_batch()
    x = jnp.reshape(x, (-1, 4))
    network = linen.Sequential(
        [linen.Dense(8, param_dtype=float), jnp.tanh, linen.Dense(3, param_dtype=float)]
    )
    variables = network.init(jax.random.key(0), x)
    value, gradient = jax.jit(
        jax.value_and_grad(lambda v: defense.objective(partial(network.apply, v), x, y))
    )(variables)
    assert float(value) == pytest.approx(
        compute_plain_objective(defense, partial(network.apply, variables), x, y)
    )
    first, last = (variables["params"][f"layers_{i}"] for i in (0, 2))
    weights = {
        "w1": first["kernel"],
        "b1": first["bias"][None],
        "w2": last["kernel"],
        "b2": last["bias"][None],
    }
    expected = jax.grad(partial(compute_objective, defense))(weights, x, y)
    kernel_gradient = gradient["params"]["layers_0"]["kernel"]
    np.testing.assert_allclose(kernel_gradient, expected["w1"], rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("defense", DEFENSES)
def test_penalty_of_a_flax_nnx_module(defense: dd.DeepDefense) -> None:
    nnx = pytest.importorskip("flax.nnx", reason="flax is not installed")
    x, y = draw_batch()
    x = jnp.reshape(x, (-1, 4)).astype(jnp.float32)  # the type of nnx's statistics

    class Network(nnx.Module):
        """A module with batch norm and dropout, whose states the penalty must not change."""

        def __init__(self, rngs: Any) -> None:
            self.first = nnx.Linear(4, 8, rngs=rngs)
            self.norm = nnx.BatchNorm(8, rngs=rngs)
            self.dropout = nnx.Dropout(0.5, rngs=rngs)
            self.last = nnx.Linear(8, 3, rngs=rngs)

        def __call__(self, x: Any) -> Any:
            return self.last(self.dropout(jnp.tanh(self.norm(self.first(x)))))

    model = Network(nnx.Rngs(0))
    model(x)  # moves the statistics away from their initial values
    before = jax.tree.map(np.array, nnx.to_pure_dict(nnx.state(model, nnx.BatchStat)))
    counts = np.array(model.dropout.rngs.count[...])
    value, gradient = nnx.jit(nnx.value_and_grad(lambda m: defense(m, x, y).sum()))(model)
    assert_close(nnx.to_pure_dict(nnx.state(model, nnx.BatchStat)), before, 0)
    np.testing.assert_array_equal(model.dropout.rngs.count[...], counts)
    assert not model.dropout.deterministic
    graph, state = nnx.split(model)

    def predict(x: Any) -> Any:
        twin = nnx.merge(graph, state)
        twin.eval()
        return twin(x)

    np.testing.assert_allclose(value, float(defense(predict, x, y).sum()), rtol=1e-4)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))
    assert float(jnp.abs(gradient["first"]["kernel"][...]).sum()) > 0


def test_evaluate_takes_host_data_for_a_network_of_the_zoo() -> None:
    """A zoo network belongs to JAX, so NumPy data suffice. A function needs `use_backend`."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(5, 4)), rng.integers(0, 3, 5)
    from deepdefense.zoo import mlp

    weights = {
        "fc1.weight": rng.normal(size=(3, 4)).astype(np.float32),
        "fc1.bias": np.zeros(3, np.float32),
    }
    model = dd.get_backend("jax").build(mlp((4,), 3, hidden=()), weights)  # type: ignore[attr-defined]
    assert dd.evaluate(model, x, y).n == 5


def test_networks_of_the_zoo_are_pytrees() -> None:
    """A network can be differentiated, compiled and updated as a pytree argument."""
    import optax

    rng = np.random.default_rng(0)
    shapes = {"fc1.weight": (8, 4), "fc1.bias": (8,), "fc2.weight": (3, 8), "fc2.bias": (3,)}
    weights = {key: rng.normal(0, 0.5, size).astype(np.float32) for key, size in shapes.items()}
    with dd.use_backend("jax"):
        model = dd.build(dd.zoo.mlp((4,), 3, hidden=(8,)), weights)
    x, y = draw_batch()
    x = jnp.reshape(x, (-1, 4)).astype(jnp.float32)
    defense = dd.DeepDefense(lam=1.0, c=2.0, d=1.0)

    @jax.jit
    def step(model: Any, x: Any, y: Any) -> Any:
        value, gradients = jax.value_and_grad(lambda m: defense.objective(m, x, y))(model)
        updates = jax.tree.map(lambda g: -1e-3 * g, gradients)
        return value, optax.apply_updates(model, updates)

    value, updated = step(model, x, y)
    assert type(updated) is type(model)
    assert float(step(updated, x, y)[0]) < float(value)
