"""What one check of an evaluation found."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

__all__ = ["Check", "Status", "find_severe_failure", "grade", "make_check"]

Status = Literal["pass", "warn", "fail"]


@dataclass(frozen=True)
class Check:
    """Something that would make figures of robustness wrong, looked for.

    `evidence` says what was seen, in figures; `remedy` what to do about it. Figures are not to be
    believed while a `severe` check fails.
    """

    name: str
    status: Status
    evidence: str
    remedy: str
    severe: bool = True

    def __str__(self) -> str:
        """One line, and a second with the remedy where there is something to do."""
        line = f"{self.status}  {self.name}: {self.evidence}"
        return line if self.status == "pass" else f"{line}\n      {self.remedy}"


def grade(share: float, warn: float, fail: float, n: int | None = None) -> Status:
    """Fail above one share, warn above another; a share that is not a number fails.

    Of `n` examples one alone never fails: it may be chance.
    """
    alone = n is not None and round(share * n) <= 1 < n
    if not share <= fail and not alone:
        return "fail"
    return "warn" if share > warn else "pass"


def make_check(
    name: str, status: Status, evidence: str, remedy: str = "", *, severe: bool = True
) -> Check:
    """A check, with its remedy where there is something to do."""
    return Check(name, status, evidence, "" if status == "pass" else remedy, severe)


def find_severe_failure(checks: Iterable[Check]) -> Check | None:
    """The first severe check that fails."""
    return next((check for check in checks if check.severe and check.status == "fail"), None)
