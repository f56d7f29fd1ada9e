"""Deep Defense: make a trained classifier robust to adversarial perturbations, in any framework.

>>> import deepdefense as dd
>>> dd.DeepDefense().gradient
'unrolled'
"""

from deepdefense import zoo
from deepdefense.attacks import Perturbation, deepfool
from deepdefense.backend import (
    Backend,
    available_backends,
    current_backend,
    get_backend,
    use_backend,
)
from deepdefense.defense import DeepDefense, Terms
from deepdefense.errors import InputError
from deepdefense.evaluation import Report, evaluate
from deepdefense.hardening import harden
from deepdefense.metrics import rho
from deepdefense.models import build
from deepdefense.results import HardeningReport
from deepdefense.stages import Watcher
from deepdefense.training import Recipe

__version__ = "0.1.0"

__all__ = [
    "Backend",
    "DeepDefense",
    "HardeningReport",
    "InputError",
    "Perturbation",
    "Recipe",
    "Report",
    "Terms",
    "Watcher",
    "available_backends",
    "build",
    "current_backend",
    "deepfool",
    "evaluate",
    "get_backend",
    "harden",
    "rho",
    "use_backend",
    "zoo",
]
