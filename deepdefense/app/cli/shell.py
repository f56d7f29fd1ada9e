"""What the commands share: the console, a progress bar, and common options."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from deepdefense.seam.progress import Watcher

__all__ = [
    "Backend",
    "Bar",
    "Data",
    "DataDir",
    "Device",
    "Network",
    "Resume",
    "Seed",
    "chosen",
    "conclude",
    "console",
    "option",
]

if TYPE_CHECKING:
    from deepdefense.app.pages import Verdict


console = Console(stderr=True, highlight=False)


class Bar(Watcher):
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

    def __enter__(self) -> Bar:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def begin(self, task: str, total: int) -> None:
        """A bar for a task of so many units, instead of the last."""
        for old in self._progress.task_ids:
            self._progress.remove_task(old)
        self._progress.add_task(task, total=total)

    def advance(self, done: int) -> None:
        """Draw it so far."""
        for task in self._progress.task_ids:
            self._progress.update(task, completed=done)

    def say(self, line: str) -> None:
        """A line above the bar."""
        self._progress.console.print(line, markup=False, soft_wrap=True)


def option(text: str) -> Parameter:
    """A parameter with its help."""
    return Parameter(help=text)


# Options that several commands take.
Data = Annotated[
    str | None,
    option("digits (default), mnist, cifar10, FILE.npz, an image folder, or parquet."),
]


DataDir = Annotated[Path | None, option("Folder with a copy of mnist or cifar10.")]


Network = Annotated[
    str | None,
    option(
        "mlp (default), bn-mlp, lenet, convnet, nin, alexnet, resnet18, or package.module:factory."
    ),
]


Backend = Annotated[
    str | None,
    option("torch, jax or tensorflow (default: the first of them that is installed)."),
]


Device = Annotated[
    str | None,
    option(
        "Where it runs, in the framework's own name: cuda or cuda:1 in PyTorch, gpu in the others "
        "(default: PyTorch takes the CPU, the others a GPU if they see one)."
    ),
]


Seed = Annotated[int | None, option("Of everything random (default: 0).")]


Resume = Annotated[
    bool, Parameter(negative="", help="Go on with the run in OUT, or the newest in runs/.")
]


def chosen(**options: Any) -> dict[str, Any]:
    """The options that were given, paths as text: what a run keeps of them."""
    return {
        name: str(value) if isinstance(value, Path) else value
        for name, value in options.items()
        if value is not None
    }


def conclude(verdict: Verdict, folder: Path) -> None:
    """The verdict for people, and the page's path for programs."""
    console.print(f"\n{verdict.headline}. {verdict.sentence}", markup=False, soft_wrap=True)
    print(folder / "report.html")
