"""The result of one check, and how a check is graded."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

__all__ = ["Check", "Status", "as_percent", "find_severe_failure", "grade", "make_check"]

Status = Literal["pass", "warn", "fail"]


@dataclass(frozen=True)
class Check:
    """The result of looking for one cause of wrong robustness figures.

    `evidence` says in figures what was seen, and `remedy` what to do about it. If a `severe` check
    fails, the robustness figures cannot be trusted.
    """

    name: str
    status: Status
    evidence: str
    remedy: str
    severe: bool = True

    def __str__(self) -> str:
        """One line, and a second line with the remedy unless the check passes."""
        line = f"{self.status}  {self.name}: {self.evidence}"
        return line if self.status == "pass" else f"{line}\n      {self.remedy}"


def make_check(
    name: str, status: Status, evidence: str, remedy: str = "", *, severe: bool = True
) -> Check:
    """Return a `Check`; one that passes has no remedy."""
    return Check(name, status, evidence, "" if status == "pass" else remedy, severe)


def grade(share: float, warn: float, fail: float, n: int | None = None) -> Status:
    """Fail above the share `fail`, warn above the share `warn`; NaN fails.

    If `n` is given, a single one of n examples never fails, because it may be chance.
    """
    alone = n is not None and round(share * n) <= 1 < n
    if not share <= fail and not alone:
        return "fail"
    return "warn" if share > warn else "pass"


def find_severe_failure(checks: Iterable[Check]) -> Check | None:
    """Return the first severe check that fails, or None."""
    return next((check for check in checks if check.severe and check.status == "fail"), None)


def as_percent(share: float) -> str:
    """Return a share as text for the evidence of a check.

    >>> as_percent(0.12345)
    '12.3 %'
    """
    return f"{100 * share:.3g} %"
