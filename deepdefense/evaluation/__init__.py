"""Measures the accuracy and robustness of a network, and checks whether to trust the figures."""

from deepdefense.evaluation.checks import Check
from deepdefense.evaluation.doctor import Diagnosis, doctor
from deepdefense.evaluation.fgs_accuracy import eps_ref, fgs_accuracy
from deepdefense.evaluation.report import Report
from deepdefense.evaluation.rho_protocol import Measurement, Summary, measure_rho

__all__ = [
    "Check",
    "Diagnosis",
    "Measurement",
    "Report",
    "Summary",
    "doctor",
    "eps_ref",
    "fgs_accuracy",
    "measure_rho",
]
