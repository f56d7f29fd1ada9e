"""The command-line program, which runs a command and prints errors in one line each."""

from __future__ import annotations

import sys
from typing import Any

from cyclopts import App, CycloptsError

from deepdefense.app.cli.evaluate import evaluate_command
from deepdefense.app.cli.harden import harden_command
from deepdefense.app.cli.reproduce import reproduce_command
from deepdefense.app.cli.terminal import console
from deepdefense.errors import InputError
from deepdefense.seam.choosing import available_backends

__all__ = ["app", "main"]


def backends_command() -> int:
    """List the known backends, and say for each whether its framework is installed."""
    for name, installed in available_backends().items():
        print(f"{name}: {'available' if installed else 'not installed'}")
    return 0


app = App(
    name="deepdefense",
    help="Make a trained classifier robust, and tell how robust it is.",
    suppress_keyboard_interrupt=False,  # `main` catches it to print how to continue
)
app.command(harden_command, name="harden")
app.command(evaluate_command, name="evaluate")
app.command(reproduce_command, name="reproduce")
app.command(backends_command, name="backends")


def main(arguments: list[str] | None = None) -> None:
    """Run the command that `arguments` name, and exit the process with the command's exit code.

    If `arguments` is None, the arguments of the process are used, `sys.argv[1:]`.
    """
    code: Any
    name = next(iter(sys.argv[1:] if arguments is None else arguments), "")
    try:
        code = app(arguments, exit_on_error=False, print_error=False, result_action="return_value")
    except (CycloptsError, InputError, ImportError) as error:
        code = _report_error(str(error))
    except OSError as error:
        file = f"{error.filename}: " if error.filename else ""
        code = _report_error(f"{file}{error.strerror or error}")
    except KeyboardInterrupt:
        again = "the same command" if name == "reproduce" else f"deepdefense {name} --resume"
        console.print(f"interrupted; to go on from what is complete: {again}", markup=False)
        code = 130
    sys.exit(code)


def _report_error(message: str) -> int:
    """Print an error message as a single line, and return the exit code 2."""
    line = " ".join(message.split())
    console.print(f"error: {line}", markup=False, soft_wrap=True)
    return 2
