"""How a long job tells of its progress."""

from __future__ import annotations

__all__ = ["Watcher"]


class Watcher:
    """What hears of a job's progress; this one keeps it to itself."""

    def begin(self, task: str, total: int) -> None:
        """A task of `total` units begins."""

    def advance(self, done: int) -> None:
        """So many units of it are done."""

    def say(self, line: str) -> None:
        """Something a person would want to read."""
