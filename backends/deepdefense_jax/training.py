"""Training in JAX: build models, and read, replace and freeze their parameters.

The optimizer is in optimizer.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from jax import Array, lax

from deepdefense.seam.training_contract import OptimizerName, TrainingBackend
from deepdefense.seam.validation import find_device
from deepdefense.zoo import COUNTER, Network
from deepdefense_jax.networks import ZooModel
from deepdefense_jax.optimizer import JaxTrainer
from deepdefense_jax.weights import Arrays, name_parameters, replace_parameters

__all__ = ["JaxTraining"]


def _list_devices(kind: str) -> list[Any]:
    try:
        return jax.devices(kind)
    except RuntimeError:  # JAX has no platform of this name
        return []


class JaxTraining(TrainingBackend):
    """The training methods of the JAX backend.

    A model is a callable pytree: a zoo network, an equinox module, or
    ``jax.tree_util.Partial(apply, parameters)``. The trainer updates all floating and complex
    arrays of the model except the running statistics of zoo networks.
    """

    @contextmanager
    def on_device(self, device: str | None) -> Iterator[None]:
        context = device and jax.default_device(find_device(device, _list_devices))
        with context or nullcontext():
            yield

    def build(self, network: Network, weights: Arrays) -> ZooModel:
        # PyTorch's batch norm stores a count of batches, which the JAX networks do not need.
        used = {n: jnp.asarray(v) for n, v in weights.items() if not n.endswith(COUNTER)}
        return ZooModel(network, used)

    def copy(self, model: Any) -> Any:
        return model  # training never changes a pytree in place, so no copy is needed

    def weights(self, model: Any) -> dict[str, npt.NDArray[Any]]:
        return {name: np.array(value) for name, value in name_parameters(model).items()}

    def load(self, model: Any, weights: Arrays) -> Any:
        own = name_parameters(model)
        return replace_parameters(
            model, {n: jnp.asarray(weights[n], dtype=v.dtype) for n, v in own.items()}
        )

    def freeze_except(self, model: Any, layer: str) -> Callable[[Array], Array]:
        parameters = {
            name: value if name.rpartition(".")[0] == layer else lax.stop_gradient(value)
            for name, value in name_parameters(model).items()
        }
        frozen: Callable[[Array], Array] = replace_parameters(model, parameters)
        return frozen

    def trainer(
        self,
        model: Any,
        *,
        optimizer: OptimizerName,
        momentum: float,
        weight_decay: float,
        seed: int,
    ) -> JaxTrainer:
        return JaxTrainer(model, optimizer, momentum, weight_decay, seed)

    @contextmanager
    def fixed_seed(self, *seed: int) -> Iterator[None]:
        yield  # JAX has no global random state
