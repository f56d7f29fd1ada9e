"""The JAX backend: operations, training and networks, eagerly and in every transformation."""

from deepdefense_jax.adapter import JaxOperations
from deepdefense_jax.networks import ZooModel
from deepdefense_jax.training import JaxTraining

__all__ = ["BACKEND", "ZooModel"]


class _Jax(JaxOperations, JaxTraining):
    """All operations, and training."""


BACKEND = _Jax()
