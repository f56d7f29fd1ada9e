"""The HTML pages that the commands write; each is a single file with its pictures and styles.

For each page, a Python module prepares the content and a Jinja2 template lays it out. Only the
extra `deepdefense[cli]` installs matplotlib and Jinja2, so other modules import this package inside
functions.
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
