"""`Check`, the result of one check, and the functions that create and grade it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

__all__ = ["Check", "Status", "as_percent", "find_severe_failure", "grade", "make_check"]

Status = Literal["pass", "warn", "fail"]


@dataclass(frozen=True)
class Check:
    """The result of a check that looks for one possible fault of an evaluation.

    Attributes:
        name: the name of the check.
        status: "pass", "warn" or "fail".
        evidence: a text that says what was measured.
        remedy: a text that says what to do; empty if the status is "pass".
        severe: whether robustness figures cannot be trusted if the check fails.
    """

    name: str
    status: Status
    evidence: str
    remedy: str
    severe: bool = True

    def __str__(self) -> str:
        """Return one line with the evidence, and a second line with the remedy, if there is one."""
        line = f"{self.status}  {self.name}: {self.evidence}"
        return line if self.status == "pass" else f"{line}\n      {self.remedy}"


def make_check(
    name: str, status: Status, evidence: str, remedy: str = "", *, severe: bool = True
) -> Check:
    """Create a `Check`, without the remedy if the status is "pass"."""
    return Check(name, status, evidence, "" if status == "pass" else remedy, severe)


def grade(share: float, warn: float, fail: float, n: int | None = None) -> Status:
    """Return the status of a check, given the share of the examples that show its fault.

    The status is "fail" if the share is NaN or above `fail`, else "warn" if the share is above
    `warn`, else "pass". If at most one of `n` examples shows the fault, the status is never "fail",
    because a single example may show it by chance.
    """
    is_single = n is not None and round(share * n) <= 1 < n
    if not share <= fail and not is_single:
        return "fail"
    return "warn" if share > warn else "pass"


def find_severe_failure(checks: Iterable[Check]) -> Check | None:
    """Return the first severe check whose status is "fail", or None if there is none."""
    return next((check for check in checks if check.severe and check.status == "fail"), None)


def as_percent(share: float) -> str:
    """Format a share in 0..1 as a percentage.

    >>> as_percent(0.12345)
    '12.3 %'
    """
    return f"{100 * share:.3g} %"
