"""The defences that Deep Defense is compared with, each of which is a training objective.

>>> from deepdefense.defenses.baselines import AdversarialTraining
>>> AdversarialTraining(eps=0.1).alpha
0.5
"""

from deepdefense.defenses.adversarial import AdversarialTraining, DeepFoolTraining, PGDTraining
from deepdefense.defenses.mma import MMA
from deepdefense.defenses.parseval import Parseval
from deepdefense.defenses.trades import TRADES

__all__ = ["MMA", "TRADES", "AdversarialTraining", "DeepFoolTraining", "PGDTraining", "Parseval"]
