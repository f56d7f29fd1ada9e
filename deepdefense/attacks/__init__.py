"""Attacks: pure functions, one file each."""

from deepdefense.attacks.deepfool import Perturbation, deepfool

__all__ = ["Perturbation", "deepfool"]
