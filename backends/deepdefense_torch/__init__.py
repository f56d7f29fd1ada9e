"""The PyTorch backend: operations, training and networks, on the device of the arrays."""

from deepdefense_torch.adapter import TorchOperations
from deepdefense_torch.training import TorchTraining

__all__ = ["BACKEND"]


class _Torch(TorchOperations, TorchTraining):
    """The backend of PyTorch, with operations and training; `BACKEND` is its only instance."""


BACKEND = _Torch()
