"""The JAX backend: the seam of `deepdefense`, eagerly and under every transformation."""

from deepdefense_jax.adapter import JaxSeam
from deepdefense_jax.networks import ZooModel
from deepdefense_jax.training import JaxTraining

__all__ = ["BACKEND", "ZooModel"]


class _Jax(JaxSeam, JaxTraining):
    """The seam, and training."""


BACKEND = _Jax()
