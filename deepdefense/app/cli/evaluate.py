"""The command `deepdefense evaluate`: its options, its output and its exit code."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from deepdefense.app.cli.options import option, with_options
from deepdefense.app.cli.terminal import Resume, TerminalWatcher, show_verdict
from deepdefense.app.jobs.evaluate import find_hardened, run_evaluate
from deepdefense.app.jobs.settings import EVALUATE
from deepdefense.errors import InputError

__all__ = ["evaluate_command"]


@with_options(EVALUATE)
def evaluate_command(
    run: Annotated[
        Path | None,
        option(
            "Folder of a finished run of harden: evaluate its network, and compare with the one it "
            "began with (default: the newest in runs/, unless --network or --weights is given).",
            "Data and network",
        ),
    ] = None,
    *,
    fail_under: Annotated[
        float | None,
        option("Exit with 1 if accuracy under attack within --eps is lower, or not to be trusted."),
    ] = None,
    out: Annotated[
        Path | None, option("New folder for the results (default: runs/evaluate-...-TIME).")
    ] = None,
    resume: Resume = False,
    **options: Any,
) -> int:
    """Measure how robust a network is by several attacks, and check the measurement.

    Writes report.html and report.json into a new folder.
    """
    if fail_under is not None and not (options.get("eps") and 0 <= fail_under <= 1):
        raise InputError("--fail-under is an accuracy from 0 to 1, and needs --eps to give it at")
    if run is not None or not (resume or options.get("network") or options.get("weights")):
        options = find_hardened(run) | options
    with TerminalWatcher() as watcher:
        report, folder = run_evaluate(options, out=out, resume=resume, watcher=watcher)
    from deepdefense.app.pages import judge_evaluation

    show_verdict(judge_evaluation(report), folder)
    robust = report.headline.robust_accuracy
    return 0 if fail_under is None or (robust is not None and robust >= fail_under) else 1
