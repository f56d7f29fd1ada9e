"""The pages of the commands: HTML files that need nothing but themselves.

They take matplotlib and Jinja2, of the extra `deepdefense[cli]`; nothing else imports this package.
"""

from deepdefense.app.pages.evaluation import Weakest, render_evaluation
from deepdefense.app.pages.evaluation_verdict import judge_evaluation
from deepdefense.app.pages.page import Gallery, render
from deepdefense.app.pages.study import render_study
from deepdefense.app.pages.verdict import Verdict, judge

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
