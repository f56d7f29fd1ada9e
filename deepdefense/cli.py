"""The command line: `deepdefense harden`, `evaluate`, `reproduce` and `backends`.

Exit codes: 0 done, 1 stopped early (the last good epoch is written) or below --fail-under, 2
unusable input, in one line and without a traceback, 130 interrupted.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from deepdefense.backend import available_backends
from deepdefense.errors import InputError

try:
    from cyclopts import App, CycloptsError, Parameter
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )
except ModuleNotFoundError as missing:
    sys.exit(f'error: {missing.name} is missing: pip install "deepdefense[cli]"')

from deepdefense.watcher import Watcher

if TYPE_CHECKING:
    from deepdefense.report import Verdict
    from deepdefense.results import HardeningReport

__all__ = ["app", "main"]

app = App(
    name="deepdefense",
    help="Make a trained classifier robust, and tell how robust it is.",
    suppress_keyboard_interrupt=False,  # `main` says how to go on
)
console = Console(stderr=True, highlight=False)


class _Bar(Watcher):
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

    def __enter__(self) -> _Bar:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def begin(self, task: str, total: int) -> None:
        for old in self._progress.task_ids:
            self._progress.remove_task(old)
        self._progress.add_task(task, total=total)

    def advance(self, done: int) -> None:
        for task in self._progress.task_ids:
            self._progress.update(task, completed=done)

    def say(self, line: str) -> None:
        self._progress.console.print(line, markup=False, soft_wrap=True)


def _option(text: str) -> Parameter:
    return Parameter(help=text)


# Options that several commands take.
Data = Annotated[
    str | None,
    _option("digits (default), mnist, cifar10, FILE.npz, an image folder, or parquet."),
]
DataDir = Annotated[Path | None, _option("Folder with a copy of mnist or cifar10.")]
Network = Annotated[
    str | None,
    _option(
        "mlp (default), bn-mlp, lenet, convnet, nin, alexnet, resnet18, or package.module:factory."
    ),
]
Backend = Annotated[
    str | None,
    _option("torch, jax or tensorflow (default: the first of them that is installed)."),
]
Seed = Annotated[int | None, _option("Of everything random (default: 0).")]
Resume = Annotated[
    bool, Parameter(negative="", help="Go on with the run in OUT, or the newest in runs/.")
]


@app.command
def harden(
    *,
    data: Data = None,
    data_dir: DataDir = None,
    network: Network = None,
    weights: Annotated[
        Path | None, _option("FILE.safetensors of a trained network; without it one is trained.")
    ] = None,
    backend: Backend = None,
    epochs: Annotated[int | None, _option("Epochs of hardening (default: 5; digits: 90).")] = None,
    lr: Annotated[float | None, _option("Learning rate (default: 5e-4; digits: 1e-3).")] = None,
    batch_size: Annotated[int | None, _option("Examples per step (default: 100).")] = None,
    warmup: Annotated[
        float | None, _option("Epochs in which the learning rate rises from 0 (default: 0).")
    ] = None,
    clip: Annotated[
        float | Literal["auto"] | None,
        _option("Longest gradient of a step, or auto: the median before training (default: none)."),
    ] = None,
    lam: Annotated[float | None, _option("Weight of the penalty (default: 15).")] = None,
    c: Annotated[
        float | None,
        _option("Steepness for right examples (default: fitted to the network's own rho)."),
    ] = None,
    d: Annotated[
        float | None, _option("Steepness for wrong examples (default: c / 5 as fitted).")
    ] = None,
    steps: Annotated[int | None, _option("Most DeepFool iterations (default: 5).")] = None,
    candidates: Annotated[int | None, _option("Classes considered (default: 10).")] = None,
    p: Annotated[float | None, _option("Order of the norm, 1 to inf (default: 2).")] = None,
    gradient: Annotated[
        Literal["unrolled", "implicit", "chord"] | None,
        _option(
            "Through every iteration (default), by the envelope theorem, or one step (--fast)."
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
    max_accuracy_drop: Annotated[
        float | None,
        _option(
            "Take back epochs after which accuracy, on training examples set aside for it, is "
            "lower by more than this, say 0.005, and go on more slowly (default: not watched)."
        ),
    ] = None,
    patience: Annotated[
        int | None,
        _option("End after so many epochs without a larger rho_2 on those (default: never)."),
    ] = None,
    seed: Seed = None,
    out: Annotated[
        Path | None, _option("New folder for the results (default: runs/DATA-NETWORK-TIME).")
    ] = None,
    resume: Resume = False,
) -> int:
    """Make a classifier robust with Deep Defense, and report on it before and after.

    Without an argument: scikit-learn's digits and an MLP, in under a minute. Writes report.html,
    report.json and hardened.safetensors into a new folder.
    """
    given = {
        "data": data,
        "data_dir": None if data_dir is None else str(data_dir),
        "network": network,
        "weights": None if weights is None else str(weights),
        "backend": backend,
        "epochs": epochs,
        "lr": lr,
        "batch_size": batch_size,
        "warmup": warmup,
        "clip": clip,
        "lam": lam,
        "c": c,
        "d": d,
        "steps": steps,
        "candidates": candidates,
        "p": p,
        "gradient": gradient,
        "max_accuracy_drop": max_accuracy_drop,
        "patience": patience,
        "seed": seed,
    }
    from deepdefense.defense import FAST
    from deepdefense.job import run_job

    chosen = {name: value for name, value in given.items() if value is not None}
    with _Bar() as bar:
        report, folder = run_job(
            {**FAST, **chosen} if fast else chosen,
            out=out,
            resume=resume,
            watcher=bar,
        )
    _tell(report, folder)
    return 1 if report.stopped else 0


@app.command
def evaluate(
    *,
    data: Data = None,
    data_dir: DataDir = None,
    network: Network = None,
    weights: Annotated[
        Path | None, _option("FILE.safetensors of the network; a factory may bring its own.")
    ] = None,
    reference: Annotated[
        Path | None, _option("FILE.safetensors of the undefended network, to compare with.")
    ] = None,
    backend: Backend = None,
    preset: Annotated[
        Literal["quick", "standard", "thorough"] | None,
        _option("Which attacks, and with how many steps (default: quick)."),
    ] = None,
    examples: Annotated[
        int | None, _option("Held-out examples, drawn by the seed (default: 1000).")
    ] = None,
    p: Annotated[float | None, _option("Norm of the attacker, 2 or inf (default: 2).")] = None,
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
        _option("Keep perturbed images within 0..255 (default), or not."),
    ] = None,
    batch_size: Annotated[
        int | None, _option("Examples attacked at a time (default: 500).")
    ] = None,
    seed: Seed = None,
    fail_under: Annotated[
        float | None,
        _option(
            "Exit with 1 if accuracy under attack within --eps is lower, or not to be trusted."
        ),
    ] = None,
    out: Annotated[
        Path | None, _option("New folder for the results (default: runs/evaluate-...-TIME).")
    ] = None,
    resume: Resume = False,
) -> int:
    """Tell how robust a network is by several attacks, and whether that can be believed.

    Writes report.html and report.json into a new folder.
    """
    from deepdefense.evaluation.job import run_evaluation

    if fail_under is not None and not (eps and 0 <= fail_under <= 1):
        raise InputError("--fail-under is an accuracy from 0 to 1, and needs --eps to give it at")
    given = {
        "data": data,
        "data_dir": None if data_dir is None else str(data_dir),
        "network": network,
        "weights": None if weights is None else str(weights),
        "reference": None if reference is None else str(reference),
        "backend": backend,
        "preset": preset,
        "examples": examples,
        "p": p,
        "eps": eps,
        "bounds": bounds,
        "batch_size": batch_size,
        "seed": seed,
    }
    chosen = {name: value for name, value in given.items() if value is not None}
    with _Bar() as bar:
        report, folder = run_evaluation(chosen, out=out, resume=resume, watcher=bar)
    from deepdefense.report import judge_evaluation

    _conclude(judge_evaluation(report.as_dict()), folder)
    robust = report.headline.robust_accuracy
    return 0 if fail_under is None or (robust is not None and robust >= fail_under) else 1


@app.command
def reproduce(
    table: Annotated[
        Literal["table1", "table2", "epochs", "ablation", "layers", "cost"],
        _option("table1: the paper's; table2: stronger attacks; the others as they say."),
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
            help="Of plain, parseval, fgs, deepfool, pgd, trades, mma, paper, deepdefense "
            "(default: all).",
        ),
    ] = None,
    seeds: Annotated[
        list[int] | None, Parameter(negative="", consume_multiple=True, help="Default: 0.")
    ] = None,
    data_dir: Annotated[
        Path | None,
        _option(
            "Folder with copies of mnist and cifar10; a file NETWORK_reference.safetensors beside "
            "the data is the reference network."
        ),
    ] = None,
    backend: Backend = None,
    epochs: Annotated[
        int | None, _option("Of every method, instead of what fits each subject.")
    ] = None,
    train_examples: Annotated[
        int | None, _option("Only the first of the training set, for a shortened schedule.")
    ] = None,
    examples: Annotated[
        int | None, _option("Held-out examples that are attacked (default: 500).")
    ] = None,
    quick: Annotated[
        bool, Parameter(negative="", help="A smoke run of minutes, on scikit-learn's digits.")
    ] = False,
    out: Annotated[Path, _option("Folder of the study; what is in it is not done again.")] = Path(
        "runs/study"
    ),
) -> int:
    """Repeat the paper's study: train by every method, attack, and write a table.

    Writes TABLE.json, TABLE.md and TABLE.html into the folder, where each network that was trained
    has a folder of its own. Interrupted, the same command goes on.
    """
    from deepdefense.study import run_study

    given = {
        "subjects": subjects,
        "methods": methods,
        "seeds": seeds,
        "data_dir": None if data_dir is None else str(data_dir),
        "backend": backend,
        "epochs": epochs,
        "train_examples": train_examples,
        "examples": examples,
    }
    shown = {k: v for k, v in given.items() if v is not None and k != "data_dir"}
    words = ["deepdefense", "reproduce", table, *["--quick"] * quick]
    for name, value in shown.items():
        words += [
            f"--{name.replace('_', '-')}",
            *map(str, value if isinstance(value, list) else [value]),
        ]
    with _Bar() as bar:
        page = run_study(
            table,
            {name: value for name, value in given.items() if value is not None},
            quick=quick,
            out=out,
            command=" ".join(words),
            watcher=bar,
        )
    print(page)
    return 0


def _tell(report: HardeningReport, folder: Path) -> None:
    from deepdefense.report import judge

    _conclude(judge(report.as_dict()), folder)


def _conclude(verdict: Verdict, folder: Path) -> None:
    console.print(f"\n{verdict.headline}. {verdict.sentence}", markup=False, soft_wrap=True)
    print(folder / "report.html")


@app.command
def backends() -> int:
    """List the known backends, and whether their framework is installed."""
    for name, installed in available_backends().items():
        print(f"{name}: {'available' if installed else 'not installed'}")
    return 0


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit."""
    code: Any
    command = next(iter(sys.argv[1:] if arguments is None else arguments), "")
    try:
        code = app(arguments, exit_on_error=False, print_error=False, result_action="return_value")
    except (CycloptsError, InputError, ImportError) as error:
        code = _fail(str(error))
    except OSError as error:
        what = f"{error.filename}: " if error.filename else ""
        code = _fail(f"{what}{error.strerror or error}")
    except KeyboardInterrupt:
        console.print(
            f"interrupted; to go on from what is complete: deepdefense {command} --resume",
            markup=False,
        )
        code = 130
    sys.exit(code)


def _fail(message: str) -> int:
    """Say what is wrong in one line; the exit code."""
    line = " ".join(message.split())
    console.print(f"error: {line}", markup=False, soft_wrap=True)
    return 2
