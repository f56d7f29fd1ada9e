"""The report page of `deepdefense harden`: one HTML file that needs nothing but itself.

It takes matplotlib and Jinja2, of the extra `deepdefense[cli]`; nothing else imports this package.
"""

from deepdefense.report.page import Gallery, render
from deepdefense.report.verdict import Verdict, judge

__all__ = ["Gallery", "Verdict", "judge", "render"]
