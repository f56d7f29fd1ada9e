"""Train Keras 3 models with Deep Defense by their own `fit`, on any backend of Keras."""

from deepdefense_keras.fitting import defended

__all__ = ["defended"]
