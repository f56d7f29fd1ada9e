"""The pages of the commands: HTML files that need nothing but themselves.

They take matplotlib and Jinja2, of the extra `deepdefense[cli]`; nothing else imports this package.
"""

from deepdefense.app.pages.evaluation import WeakestExamples, render_evaluation
from deepdefense.app.pages.evaluation_headline import judge_evaluation
from deepdefense.app.pages.hardening import Gallery, render_hardening
from deepdefense.app.pages.hardening_headline import Verdict, judge_hardening
from deepdefense.app.pages.study import render_study

__all__ = [
    "Gallery",
    "Verdict",
    "WeakestExamples",
    "judge_evaluation",
    "judge_hardening",
    "render_evaluation",
    "render_hardening",
    "render_study",
]
