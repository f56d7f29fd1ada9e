"""Deep Defense in Keras 3's own `fit`, on any backend of Keras."""

from deepdefense_keras.fitting import defended

__all__ = ["defended"]
