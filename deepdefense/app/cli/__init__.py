"""The command line: `deepdefense harden`, `evaluate`, `reproduce` and `backends`.

The exit code of a command is

- 0 if the command completed;
- 1 if training stopped early, or if accuracy under attack is below --fail-under;
- 2 if the input cannot be used;
- 130 if the user interrupted the command.
"""

from __future__ import annotations

import sys

__all__ = ["app", "main"]

try:
    from deepdefense.app.cli.program import app, main
except ModuleNotFoundError as missing:
    if missing.name not in {"cyclopts", "rich"}:
        raise
    sys.exit(f'error: {missing.name} is missing: pip install "deepdefense[cli]"')
