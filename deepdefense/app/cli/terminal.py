"""Print progress and results to the terminal, for all commands."""

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
    """A watcher that draws a progress bar with the time left, and prints lines above the bar."""

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
        """Replace the progress bar by a new one, for a task of `total` units of work."""
        for old in self._progress.task_ids:
            self._progress.remove_task(old)
        self._progress.add_task(task, total=total)

    def advance(self, done: int) -> None:
        """Redraw the progress bar with `done` units of work completed."""
        for task in self._progress.task_ids:
            self._progress.update(task, completed=done)

    def say(self, line: str) -> None:
        """Print a line above the progress bar."""
        self._progress.console.print(line, markup=False, soft_wrap=True)


def show_verdict(verdict: Verdict, folder: Path) -> None:
    """Print the verdict to stderr for people, and the page's path to stdout for programs."""
    console.print(f"\n{verdict.headline}. {verdict.sentence}", markup=False, soft_wrap=True)
    print(folder / "report.html")
