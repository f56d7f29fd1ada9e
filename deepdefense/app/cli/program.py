"""The program: runs a command, and turns what went wrong into a line and an exit code."""

from __future__ import annotations

import sys
from typing import Any

from cyclopts import App, CycloptsError

from deepdefense.app.cli.evaluate import evaluate
from deepdefense.app.cli.harden import harden
from deepdefense.app.cli.reproduce import reproduce
from deepdefense.app.cli.shell import console
from deepdefense.errors import InputError
from deepdefense.seam.choosing import available_backends

__all__ = ["app", "backends", "main"]


def backends() -> int:
    """List the known backends, and whether their framework is installed."""
    for name, installed in available_backends().items():
        print(f"{name}: {'available' if installed else 'not installed'}")
    return 0


app = App(
    name="deepdefense",
    help="Make a trained classifier robust, and tell how robust it is.",
    suppress_keyboard_interrupt=False,  # `main` says how to go on
)


for command in (harden, evaluate, reproduce, backends):
    app.command(command)


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit."""
    code: Any
    name = next(iter(sys.argv[1:] if arguments is None else arguments), "")
    try:
        code = app(arguments, exit_on_error=False, print_error=False, result_action="return_value")
    except (CycloptsError, InputError, ImportError) as error:
        code = _fail(str(error))
    except OSError as error:
        what = f"{error.filename}: " if error.filename else ""
        code = _fail(f"{what}{error.strerror or error}")
    except KeyboardInterrupt:
        again = "the same command" if name == "reproduce" else f"deepdefense {name} --resume"
        console.print(f"interrupted; to go on from what is complete: {again}", markup=False)
        code = 130
    sys.exit(code)


def _fail(message: str) -> int:
    """Say what is wrong in one line; the exit code."""
    line = " ".join(message.split())
    console.print(f"error: {line}", markup=False, soft_wrap=True)
    return 2
