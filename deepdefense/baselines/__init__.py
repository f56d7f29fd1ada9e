"""Other defences, to see where Deep Defense stands: each is an objective of training.

>>> from deepdefense.baselines import AdversarialTraining
>>> AdversarialTraining(eps=0.1).alpha
0.5
"""

from deepdefense.baselines.adversarial import AdversarialTraining, DeepFoolTraining, PGDTraining
from deepdefense.baselines.mma import MMA
from deepdefense.baselines.parseval import Parseval
from deepdefense.baselines.trades import TRADES

__all__ = ["MMA", "TRADES", "AdversarialTraining", "DeepFoolTraining", "PGDTraining", "Parseval"]
