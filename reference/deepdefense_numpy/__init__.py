"""The NumPy backend by finite differences, and an independent textbook oracle."""

from deepdefense_numpy.adapter import BACKEND

__all__ = ["BACKEND"]
