"""The type of the verdict at the top of a page, and the thresholds that its wording depends on."""

from __future__ import annotations

from typing import Literal, NamedTuple

__all__ = ["GRAVE_ACCURACY_FALL", "NEGLIGIBLE_CHANGE", "Tone", "Verdict"]

Tone = Literal["good", "mixed", "bad"]

# Percentage points. If accuracy falls by more than this, the headline says so.
GRAVE_ACCURACY_FALL = 5.0

# A fraction. If a distance changes by less than this, the verdict does not say that it changed.
NEGLIGIBLE_CHANGE = 0.02


class Verdict(NamedTuple):
    """The result of a run in words; `tone` chooses the colour of the headline on the page."""

    headline: str
    sentence: str
    tone: Tone
