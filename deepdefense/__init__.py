"""Deep Defense: make a trained classifier robust to adversarial perturbations, in any framework.

>>> import deepdefense as dd
>>> dd.DeepDefense().gradient
'unrolled'
"""

from inspect import isfunction

from deepdefense import zoo
from deepdefense.app.jobs.evaluate import evaluate
from deepdefense.app.jobs.harden import harden
from deepdefense.app.load_network import build
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
from deepdefense.defenses import baselines
from deepdefense.defenses.calibration import calibrate
from deepdefense.defenses.deep_defense import DeepDefense, Terms
from deepdefense.defenses.objective import Objective
from deepdefense.errors import InputError, ProbabilityWarning
from deepdefense.evaluation import Check, Diagnosis, Report, doctor, eps_ref, fgs_accuracy
from deepdefense.geometry.rho import rho
from deepdefense.seam.choosing import (
    available_backends,
    backend_of,
    current_backend,
    framework_of,
    get_backend,
    use_backend,
)
from deepdefense.seam.compilers import exempt_from_autograph
from deepdefense.seam.contract import Backend
from deepdefense.seam.progress import Watcher
from deepdefense.training.guard import Guard
from deepdefense.training.recipe import Recipe
from deepdefense.training.report import HardeningReport

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

# Exempt all public functions from AutoGraph. `Objective.objective` and `Objective.losses` are not
# exempt, because they call the user's model, and AutoGraph may have to rewrite the model. So the
# functions of this package that these two methods call are exempted one by one.
exempt_from_autograph(
    *filter(isfunction, map(globals().get, __all__)),
    DeepDefense,
    DeepDefense.terms,
    backend_of,
    framework_of,
)
