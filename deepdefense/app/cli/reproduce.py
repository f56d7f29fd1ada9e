"""`deepdefense reproduce`: the paper's study."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from deepdefense.app.cli.shell import Backend, Bar, Device, chosen, option

__all__ = ["reproduce"]


def reproduce(
    table: Annotated[
        Literal["table1", "table2", "epochs", "ablation", "layers", "cost"],
        option("table1: the paper's; table2: stronger attacks; the others as they say."),
    ],
    /,
    *,
    subjects: Annotated[
        list[str] | None,
        Parameter(
            negative="",
            consume_multiple=True,
            help="Of digits-mlp, mnist-mlp, mnist-lenet, cifar10-convnet, cifar10-nin "
            "(default: those of MNIST).",
        ),
    ] = None,
    methods: Annotated[
        list[str] | None,
        Parameter(
            negative="",
            consume_multiple=True,
            help="Of plain, parseval, fgs, deepfool, pgd, trades, mma, paper, deepdefense, "
            "nearest, image (default: all).",
        ),
    ] = None,
    seeds: Annotated[
        list[int] | None, Parameter(negative="", consume_multiple=True, help="Default: 0.")
    ] = None,
    data_dir: Annotated[
        Path | None,
        option(
            "Folder with copies of mnist and cifar10; a file NETWORK_reference.safetensors beside "
            "the data is the reference network."
        ),
    ] = None,
    backend: Backend = None,
    device: Device = None,
    epochs: Annotated[
        int | None, option("Of every method, instead of what fits each subject.")
    ] = None,
    train_examples: Annotated[
        int | None, option("Only the first of the training set, for a shortened schedule.")
    ] = None,
    test_examples: Annotated[
        int | None, option("Only the first of the held-out set, for a large network.")
    ] = None,
    examples: Annotated[
        int | None, option("Held-out examples that are attacked (default: 500).")
    ] = None,
    quick: Annotated[
        bool, Parameter(negative="", help="A smoke run of minutes, on scikit-learn's digits.")
    ] = False,
    out: Annotated[Path, option("Folder of the study; what is in it is not done again.")] = Path(
        "runs/study"
    ),
) -> int:
    """Repeat the paper's study: train by every method, attack, and write a table.

    Writes TABLE.json, TABLE.md and TABLE.html into the folder, where each network that was trained
    has a folder of its own. Interrupted, the same command goes on.
    """
    from deepdefense.app.jobs.reproduce import run_study

    given = chosen(
        subjects=subjects,
        methods=methods,
        seeds=seeds,
        data_dir=data_dir,
        backend=backend,
        device=device,
        epochs=epochs,
        train_examples=train_examples,
        test_examples=test_examples,
        examples=examples,
    )
    words = ["deepdefense", "reproduce", table, *["--quick"] * quick]
    for name, value in given.items():
        if name == "data_dir":
            continue  # where the data lie here says nothing elsewhere
        words += [
            f"--{name.replace('_', '-')}",
            *map(str, value if isinstance(value, list) else [value]),
        ]
    with Bar() as bar:
        page = run_study(
            table,
            given,
            quick=quick,
            out=out,
            command=" ".join(words),
            watcher=bar,
        )
    print(page)
    return 0
