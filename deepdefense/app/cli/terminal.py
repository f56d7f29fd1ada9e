"""What the commands share: the console, a progress bar, and how a result is shown."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from deepdefense.app.cli.options import switch
from deepdefense.seam.progress import Watcher

__all__ = ["Resume", "TerminalWatcher", "console", "show_verdict"]

if TYPE_CHECKING:
    from deepdefense.app.pages import Verdict


console = Console(stderr=True, highlight=False)


Resume = Annotated[bool, switch("Continue the run in OUT, or the newest in runs/.")]


class TerminalWatcher(Watcher):
    """A progress bar with the time left, and lines above it."""

    def __init__(self) -> None:
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f}%"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=console,
            transient=True,
        )

    def __enter__(self) -> TerminalWatcher:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def begin(self, task: str, total: int) -> None:
        """Replace the bar by one for a task of `total` units."""
        for old in self._progress.task_ids:
            self._progress.remove_task(old)
        self._progress.add_task(task, total=total)

    def advance(self, done: int) -> None:
        """Draw the bar at `done` units."""
        for task in self._progress.task_ids:
            self._progress.update(task, completed=done)

    def say(self, line: str) -> None:
        """Print a line above the bar."""
        self._progress.console.print(line, markup=False, soft_wrap=True)


def show_verdict(verdict: Verdict, folder: Path) -> None:
    """Print the verdict for people, and the page's path for programs."""
    console.print(f"\n{verdict.headline}. {verdict.sentence}", markup=False, soft_wrap=True)
    print(folder / "report.html")
