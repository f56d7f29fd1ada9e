"""The TensorFlow backend: the seam of `deepdefense`, eagerly, in graphs and under XLA."""

from deepdefense_tensorflow.adapter import TensorFlowSeam
from deepdefense_tensorflow.training import TensorFlowTraining

__all__ = ["BACKEND"]


class _TensorFlow(TensorFlowSeam, TensorFlowTraining):
    """The seam, and training."""


BACKEND = _TensorFlow()
