"""The NumPy backend, which computes gradients by finite differences, and the oracle of the tests.

The oracle is a separate implementation of DeepFool and Deep Defense, for one example at a time.
"""

from deepdefense_numpy.adapter import BACKEND

__all__ = ["BACKEND"]
