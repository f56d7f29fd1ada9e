"""The NumPy backend, whose gradients are finite differences, and the oracle that tests compare to.

The oracle is a separate implementation of DeepFool and Deep Defense, one example at a time.
"""

from deepdefense_numpy.adapter import BACKEND

__all__ = ["BACKEND"]
