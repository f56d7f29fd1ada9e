"""The pages of the commands: HTML files that need nothing but themselves.

They take matplotlib and Jinja2, of the extra `deepdefense[cli]`; nothing else imports this package.
"""

from deepdefense.report.evaluation import Weakest, render_evaluation
from deepdefense.report.evaluation_verdict import judge_evaluation
from deepdefense.report.page import Gallery, render
from deepdefense.report.study import render_study
from deepdefense.report.verdict import Verdict, judge

__all__ = [
    "Gallery",
    "Verdict",
    "Weakest",
    "judge",
    "judge_evaluation",
    "render",
    "render_evaluation",
    "render_study",
]
