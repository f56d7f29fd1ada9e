"""The command line: `deepdefense harden`, `evaluate`, `reproduce` and `backends`.

Exit codes: 0 done, 1 stopped early (the last good epoch is written) or below --fail-under, 2
unusable input, in one line and without a traceback, 130 interrupted.
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
