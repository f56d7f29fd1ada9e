"""The interface through which long computations report their progress."""

from __future__ import annotations

__all__ = ["QuietWatcher", "Watcher"]


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


class QuietWatcher(Watcher):
    """Passes progress on to another watcher, under the name `task`, but no messages."""

    def __init__(self, watcher: Watcher, task: str) -> None:
        self._watcher = watcher
        self._task = task

    def begin(self, task: str, total: int) -> None:
        """Announce the task under the name that this watcher was made with."""
        self._watcher.begin(self._task, total)

    def advance(self, done: int) -> None:
        """Pass the report on."""
        self._watcher.advance(done)
