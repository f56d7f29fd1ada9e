"""Progress reports of long jobs."""

from __future__ import annotations

__all__ = ["Watcher"]


class Watcher:
    """A receiver of progress reports; this one ignores them."""

    def begin(self, task: str, total: int) -> None:
        """Announce a task of `total` units."""

    def advance(self, done: int) -> None:
        """Report that `done` units of the task are finished so far."""

    def say(self, line: str) -> None:
        """Report one line of text for a person."""
