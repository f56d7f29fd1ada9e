"""The PyTorch backend: the seam of `deepdefense`, on the CPU or wherever the arrays are."""

from deepdefense_torch.adapter import TorchSeam
from deepdefense_torch.training import TorchTraining

__all__ = ["BACKEND"]


class _Torch(TorchSeam, TorchTraining):
    """The seam, and training."""


BACKEND = _Torch()
