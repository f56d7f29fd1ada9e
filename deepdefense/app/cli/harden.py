"""The command `deepdefense harden`: its options, its output and its exit code."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from deepdefense.app.cli.options import option, switch, with_options
from deepdefense.app.cli.terminal import Resume, TerminalWatcher, show_verdict
from deepdefense.app.jobs.harden import run_harden
from deepdefense.app.jobs.settings import HARDEN
from deepdefense.defenses.deep_defense import FAST

__all__ = ["harden_command"]


@with_options(HARDEN)
def harden_command(
    *,
    fast: Annotated[
        bool,
        switch(
            "An approximation at a third of the cost or less: "
            f"{', '.join(f'{name} {value}' for name, value in FAST.items())}, "
            "where they are not given.",
            "Penalty",
        ),
    ] = False,
    out: Annotated[
        Path | None, option("New folder for the results (default: runs/DATA-NETWORK-TIME).")
    ] = None,
    resume: Resume = False,
    **options: Any,
) -> int:
    """Make a classifier robust with Deep Defense, and report on it before and after hardening.

    Without arguments, it hardens an MLP on scikit-learn's digits in a minute or two. Writes
    report.html, report.json and hardened.safetensors into a new folder.
    """
    if fast:
        options = {**FAST, **options}
    with TerminalWatcher() as watcher:
        report, folder = run_harden(options, out=out, resume=resume, watcher=watcher)
    from deepdefense.app.pages import judge_hardening

    show_verdict(judge_hardening(report), folder)
    return 1 if report.stopped else 0
