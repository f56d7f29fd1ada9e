"""The JAX backend: operations, training and networks."""

from deepdefense_jax.adapter import JaxOperations
from deepdefense_jax.networks import ZooModel
from deepdefense_jax.training import JaxTraining

__all__ = ["BACKEND", "ZooModel"]


class _Jax(JaxOperations, JaxTraining):
    """The backend of JAX, with operations and training; `BACKEND` is its only instance."""


BACKEND = _Jax()
