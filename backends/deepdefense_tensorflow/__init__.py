"""The TensorFlow backend: operations, training and networks.

The operations work eagerly, in graphs and under XLA.
"""

from deepdefense_tensorflow.adapter import TensorFlowOperations
from deepdefense_tensorflow.training import TensorFlowTraining

__all__ = ["BACKEND"]


class _TensorFlow(TensorFlowOperations, TensorFlowTraining):
    """The backend of TensorFlow, with operations and training; `BACKEND` is its only instance."""


BACKEND = _TensorFlow()
