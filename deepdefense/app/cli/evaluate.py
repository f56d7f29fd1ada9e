"""`deepdefense evaluate`: tell how robust a network is."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from deepdefense.app.cli.shell import (
    Backend,
    Bar,
    Data,
    DataDir,
    Device,
    Network,
    Resume,
    Seed,
    chosen,
    conclude,
    option,
)
from deepdefense.errors import InputError

__all__ = ["evaluate"]


def evaluate(
    run: Annotated[
        Path | None,
        option(
            "Folder of a finished `harden` whose network to evaluate, beside the one it began with "
            "(default: the newest in runs/, unless --network or --weights says what else)."
        ),
    ] = None,
    *,
    data: Data = None,
    data_dir: DataDir = None,
    network: Network = None,
    weights: Annotated[
        Path | None, option("FILE.safetensors of the network; a factory may bring its own.")
    ] = None,
    reference: Annotated[
        Path | None, option("FILE.safetensors of the undefended network, to compare with.")
    ] = None,
    backend: Backend = None,
    device: Device = None,
    preset: Annotated[
        Literal["quick", "standard", "thorough"] | None,
        option("Which attacks, and with how many steps (default: quick)."),
    ] = None,
    examples: Annotated[
        int | None, option("Held-out examples, drawn by the seed (default: 1000).")
    ] = None,
    p: Annotated[float | None, option("Norm of the attacker, 2 or inf (default: 2).")] = None,
    eps: Annotated[
        list[float] | None,
        Parameter(
            negative="",
            help="Sizes to give accuracy under attack at, in the units of the network's input, "
            "pixels 0..255 for images (default: the median distance).",
        ),
    ] = None,
    bounds: Annotated[
        Literal["pixels", "none"] | None,
        option("Keep perturbed images within 0..255 (default), or not."),
    ] = None,
    batch_size: Annotated[int | None, option("Examples attacked at a time (default: 500).")] = None,
    seed: Seed = None,
    fail_under: Annotated[
        float | None,
        option("Exit with 1 if accuracy under attack within --eps is lower, or not to be trusted."),
    ] = None,
    out: Annotated[
        Path | None, option("New folder for the results (default: runs/evaluate-...-TIME).")
    ] = None,
    resume: Resume = False,
) -> int:
    """Tell how robust a network is by several attacks, and whether that can be believed.

    Writes report.html and report.json into a new folder.
    """
    from deepdefense.app.jobs.evaluate_job import hardened_in, run_evaluation

    if fail_under is not None and not (eps and 0 <= fail_under <= 1):
        raise InputError("--fail-under is an accuracy from 0 to 1, and needs --eps to give it at")
    given = chosen(
        data=data,
        data_dir=data_dir,
        network=network,
        weights=weights,
        reference=reference,
        backend=backend,
        device=device,
        preset=preset,
        examples=examples,
        p=p,
        eps=eps,
        bounds=bounds,
        batch_size=batch_size,
        seed=seed,
    )
    if run is not None or not (resume or network or weights):
        given = hardened_in(run) | given
    with Bar() as bar:
        report, folder = run_evaluation(given, out=out, resume=resume, watcher=bar)
    from deepdefense.app.pages import judge_evaluation

    conclude(judge_evaluation(report), folder)
    robust = report.headline.robust_accuracy
    return 0 if fail_under is None or (robust is not None and robust >= fail_under) else 1
