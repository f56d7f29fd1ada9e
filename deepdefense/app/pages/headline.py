"""The verdict that opens a page: its type, and which changes it calls large or negligible."""

from __future__ import annotations

from typing import Literal, NamedTuple

__all__ = ["GRAVE_ACCURACY_FALL", "NEGLIGIBLE_CHANGE", "Tone", "Verdict"]

Tone = Literal["good", "mixed", "bad"]


# Percentage points. A larger fall of accuracy is the headline.
GRAVE_ACCURACY_FALL = 5.0


# A smaller relative change of a distance is reported as none.
NEGLIGIBLE_CHANGE = 0.02


class Verdict(NamedTuple):
    """The result in plain words, for the page and the terminal; `tone` sets the page's colour."""

    headline: str
    sentence: str
    tone: Tone
