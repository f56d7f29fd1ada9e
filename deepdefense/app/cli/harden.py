"""`deepdefense harden`: make a classifier robust."""

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

__all__ = ["harden"]


def harden(
    *,
    data: Data = None,
    data_dir: DataDir = None,
    network: Network = None,
    weights: Annotated[
        Path | None, option("FILE.safetensors of a trained network; without it one is trained.")
    ] = None,
    backend: Backend = None,
    device: Device = None,
    epochs: Annotated[int | None, option("Epochs of hardening (default: 5; digits: 90).")] = None,
    lr: Annotated[float | None, option("Learning rate (default: 5e-4; digits: 1e-3).")] = None,
    batch_size: Annotated[int | None, option("Examples per step (default: 100).")] = None,
    warmup: Annotated[
        float | None, option("Epochs in which the learning rate rises from 0 (default: 0).")
    ] = None,
    anneal: Annotated[
        bool,
        Parameter(
            negative="",
            help="Let the learning rate down along half a cosine, instead of halving it for the "
            "last fifth of the epochs.",
        ),
    ] = False,
    clip: Annotated[
        float | Literal["auto"] | None,
        option("Longest gradient of a step, or auto: the median before training (default: none)."),
    ] = None,
    flip: Annotated[
        bool,
        Parameter(negative="", help="Mirror each training image left to right half of the time."),
    ] = False,
    shift: Annotated[
        int | None,
        option("Move each training image at random by up to so many pixels (default: 0)."),
    ] = None,
    channels_last: Annotated[
        bool,
        Parameter(
            negative="",
            help="For --flip and --shift: images of an .npz are [h w c], not [c h w].",
        ),
    ] = False,
    lam: Annotated[float | None, option("Weight of the penalty (default: 15).")] = None,
    c: Annotated[
        float | None,
        option("Steepness for right examples (default: fitted to the network's own rho)."),
    ] = None,
    d: Annotated[
        float | None, option("Steepness for wrong examples (default: c / 5 as fitted).")
    ] = None,
    steps: Annotated[int | None, option("Most DeepFool iterations (default: 5).")] = None,
    candidates: Annotated[int | None, option("Classes considered (default: 10).")] = None,
    p: Annotated[float | None, option("Order of the norm, 1 to inf (default: 2).")] = None,
    gradient: Annotated[
        Literal["unrolled", "implicit", "chord"] | None,
        option(
            "Through every iteration (default), by the envelope theorem, or by a chord (--fast)."
        ),
    ] = None,
    fast: Annotated[
        bool,
        Parameter(
            negative="",
            help="An approximation at a third of the cost or less: gradient chord, candidates 2, "
            "steps 1, where they are not given.",
        ),
    ] = False,
    bounded: Annotated[
        bool,
        Parameter(
            negative="",
            help="With --fast: the distance to the nearest image, which keeps within the range of "
            "pixels; better with --steps 3.",
        ),
    ] = False,
    max_accuracy_drop: Annotated[
        float | None,
        option(
            "Take back epochs after which accuracy, on training examples set aside for it, is "
            "lower by more than this, say 0.005, and go on more slowly (default: not watched)."
        ),
    ] = None,
    patience: Annotated[
        int | None,
        option("End after so many epochs without a larger rho_2 on those (default: never)."),
    ] = None,
    seed: Seed = None,
    out: Annotated[
        Path | None, option("New folder for the results (default: runs/DATA-NETWORK-TIME).")
    ] = None,
    resume: Resume = False,
) -> int:
    """Make a classifier robust with Deep Defense, and report on it before and after.

    Without an argument: scikit-learn's digits and an MLP, in a minute or two. Writes report.html,
    report.json and hardened.safetensors into a new folder.
    """
    given = chosen(
        data=data,
        data_dir=data_dir,
        network=network,
        weights=weights,
        backend=backend,
        device=device,
        epochs=epochs,
        lr=lr,
        batch_size=batch_size,
        warmup=warmup,
        anneal=anneal or None,
        clip=clip,
        flip=flip or None,
        shift=shift,
        channels_last=channels_last or None,
        lam=lam,
        c=c,
        d=d,
        steps=steps,
        candidates=candidates,
        p=p,
        gradient=gradient,
        bounded=bounded or None,
        max_accuracy_drop=max_accuracy_drop,
        patience=patience,
        seed=seed,
    )
    from deepdefense.app.jobs.harden_job import run_job
    from deepdefense.defenses.deep_defense import FAST

    with Bar() as bar:
        report, folder = run_job(
            {**FAST, **given} if fast else given,
            out=out,
            resume=resume,
            watcher=bar,
        )
    from deepdefense.app.pages import judge_hardening

    conclude(judge_hardening(report), folder)
    return 1 if report.stopped else 0
