"""Adversarial attacks: one function per file, named as in the literature.

Minimum-norm attacks search for the nearest point that fools the model: `deepfool`, `superdeepfool`,
`ddn`, `fmn`, `cw`. Fixed-budget attacks search for any point that fools the model within distance
eps of the example: `fgsm`, `pgd`, `apgd`, and `square`, which needs no gradient. Every attack
accepts a model and a batch of examples, and returns a `Perturbation`.

To add an attack, add a file here with one function that begins with `open_problem`; `fgsm` is the
shortest example. Helpers that several attacks use are in `common`.
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
