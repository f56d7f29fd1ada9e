"""The interface through which long computations report their progress."""

from __future__ import annotations

__all__ = ["Watcher"]


class Watcher:
    """A receiver of progress reports.

    This base class ignores all reports. A subclass can show them, for example as a progress bar.
    """

    def begin(self, task: str, total: int) -> None:
        """Announce a task of `total` units."""

    def advance(self, done: int) -> None:
        """Report that `done` units of the task are finished so far."""

    def say(self, line: str) -> None:
        """Report a message for the user, one line of text."""
