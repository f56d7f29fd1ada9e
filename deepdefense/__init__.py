"""Deep Defense: make a trained classifier robust to adversarial perturbations, in any framework.

>>> import deepdefense as dd
>>> dd.DeepDefense().gradient
'unrolled'
"""

from deepdefense import baselines, zoo
from deepdefense.assessor import Guard
from deepdefense.attacks import (
    Perturbation,
    apgd,
    cw,
    ddn,
    deepfool,
    fgsm,
    fmn,
    pgd,
    square,
    superdeepfool,
)
from deepdefense.backend import (
    Backend,
    available_backends,
    current_backend,
    get_backend,
    use_backend,
)
from deepdefense.calibration import calibrate
from deepdefense.defense import DeepDefense, Terms
from deepdefense.errors import InputError, ProbabilityWarning
from deepdefense.evaluation import (
    Check,
    Diagnosis,
    Report,
    doctor,
    eps_ref,
    evaluate,
    fgs_accuracy,
)
from deepdefense.hardening import harden
from deepdefense.metrics import rho
from deepdefense.models import build
from deepdefense.objective import Objective
from deepdefense.results import HardeningReport
from deepdefense.training import Recipe
from deepdefense.watcher import Watcher

__version__ = "0.1.0"

__all__ = [
    "Backend",
    "Check",
    "DeepDefense",
    "Diagnosis",
    "Guard",
    "HardeningReport",
    "InputError",
    "Objective",
    "Perturbation",
    "ProbabilityWarning",
    "Recipe",
    "Report",
    "Terms",
    "Watcher",
    "apgd",
    "available_backends",
    "baselines",
    "build",
    "calibrate",
    "current_backend",
    "cw",
    "ddn",
    "deepfool",
    "doctor",
    "eps_ref",
    "evaluate",
    "fgs_accuracy",
    "fgsm",
    "fmn",
    "get_backend",
    "harden",
    "pgd",
    "rho",
    "square",
    "superdeepfool",
    "use_backend",
    "zoo",
]
