"""The pages that the commands write: HTML files that need nothing but themselves.

Each page has a Python file (what is on it), a template (how it looks), and for the larger ones a
file for the headline and one for the tables. They import matplotlib and Jinja2, of the extra
`deepdefense[cli]`, so other packages import this one inside of functions.
"""

from deepdefense.app.pages.evaluation import WeakestExamples, render_evaluation
from deepdefense.app.pages.evaluation_headline import judge_evaluation
from deepdefense.app.pages.hardening import Gallery, render_hardening
from deepdefense.app.pages.hardening_headline import judge_hardening
from deepdefense.app.pages.headline import Verdict
from deepdefense.app.pages.study import StudyPage, render_study

__all__ = [
    "Gallery",
    "StudyPage",
    "Verdict",
    "WeakestExamples",
    "judge_evaluation",
    "judge_hardening",
    "render_evaluation",
    "render_hardening",
    "render_study",
]
