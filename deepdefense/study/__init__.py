"""The paper's study as commands: networks and methods trained, attacked, tabled and drawn."""

from deepdefense.study.job import STUDIES, run_study

__all__ = ["STUDIES", "run_study"]
