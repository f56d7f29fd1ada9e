"""Attacks: pure functions, one file each, named as the field names them.

Minimum-norm attacks look for the nearest point that fools the model: `deepfool`, `superdeepfool`,
`ddn`, `fmn`, `cw`. Fixed-budget attacks look for any such point within eps: `fgsm`, `pgd`, `apgd`,
and `square`, which needs no gradient. Each takes a model and a batch and returns a `Perturbation`.

A new attack, say in the 1-norm, is one more file here with one function like `fgsm`, the shortest
example. It opens with `open_problem` and takes what it can from `common`. A ball or a loss that
other attacks could use too goes to `common/balls.py` or `common/losses.py`.
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
