"""The TensorFlow backend: operations, training and networks, eagerly, in graphs and under XLA."""

from deepdefense_tensorflow.adapter import TensorFlowOperations
from deepdefense_tensorflow.training import TensorFlowTraining

__all__ = ["BACKEND"]


class _TensorFlow(TensorFlowOperations, TensorFlowTraining):
    """All operations, and training."""


BACKEND = _TensorFlow()
