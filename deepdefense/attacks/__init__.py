"""Attacks: pure functions, one file each, named as the field names them.

For the nearest point that fools (`deepfool`, `superdeepfool`, `ddn`, `fmn`, `cw`), and for any that
fools within eps (`fgsm`, `pgd`, `apgd`, and `square`, which asks for no gradient). Each takes a
model and a batch, and returns a `Perturbation`.
"""

from deepdefense.attacks.apgd import apgd
from deepdefense.attacks.common.problem import Perturbation
from deepdefense.attacks.cw import cw
from deepdefense.attacks.ddn import ddn
from deepdefense.attacks.deepfool import deepfool
from deepdefense.attacks.fgsm import fgsm
from deepdefense.attacks.fmn import fmn
from deepdefense.attacks.pgd import pgd
from deepdefense.attacks.square import square
from deepdefense.attacks.superdeepfool import superdeepfool

__all__ = [
    "Perturbation",
    "apgd",
    "cw",
    "ddn",
    "deepfool",
    "fgsm",
    "fmn",
    "pgd",
    "square",
    "superdeepfool",
]
