"""The command line of the benchmarks: `python -m benchmarks [COMMAND] --out FILE.json`.

Each command measures, prints its rows as tables and writes them to the JSON file. docs/results.py
makes the tables of docs/cost.md and docs/evaluation.md from these files.
"""

from __future__ import annotations

import json
import math
import shlex
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any

import torch
from cyclopts import App, Parameter
from rich.console import Console
from rich.table import Table

from benchmarks.attacks import measure_attacks
from benchmarks.gpu import measure_lenet, measure_resnet18
from benchmarks.hardening import measure_large_steps, measure_steps
from benchmarks.images import measure_images
from benchmarks.job import measure_job
from benchmarks.step_parts import measure_activations, measure_approximation, measure_passes
from benchmarks.strength import measure_fixed_budget, measure_minimum_norm
from benchmarks.subjects import LARGE, load_or_train, make_large_subject, make_zoo_subject
from deepdefense.app.data import load_data
from deepdefense.evaluation.dataset import Dataset
from deepdefense.evaluation.provenance import describe_environment
from deepdefense.seam.choosing import available_backends
from deepdefense.seam.training_contract import training_backend
from deepdefense.zoo import NETWORKS

app = App(name="benchmarks", help="Measure the cost of hardening and the strength of attacks.")
console = Console()
KINDS = ("mlp", "lenet")  # the networks of the zoo that are measured on MNIST
Rows = list[dict[str, Any]]  # measurements, as they are written to the JSON file
DataDir = Annotated[Path | None, Parameter(help="Folder that contains MNIST.")]
Weights = Annotated[Path | None, Parameter(help="Weights file; if not given, train first.")]
Rounds = Annotated[int, Parameter(help="The number of rounds in which everything is timed.")]
Out = Annotated[Path | None, Parameter(help="JSON file to write.")]


@app.default
def measure_all(
    *,
    data_dir: DataDir = None,
    mlp: Weights = None,
    lenet: Weights = None,
    rounds: Rounds = 11,
    out: Out = None,
) -> None:
    """Measure the cost of DeepFool and of hardening steps on MNIST, as `nox -s bench` does."""
    data = load_data("mnist", data_dir=data_dir)
    weights = {k: load_or_train(k, data, path) for k, path in zip(KINDS, (mlp, lenet), strict=True)}
    results: dict[str, Rows] = {}

    def add(title: str, rows: Iterable[Mapping[str, Any]]) -> None:
        new = list(map(dict, rows))
        results.setdefault(title, []).extend(new)
        _print_rows(title, new)

    add("attacks", _measure_mlp(data, weights["mlp"], 3))
    for kind in KINDS:
        subject = make_zoo_subject(kind, weights[kind], data)
        add("steps", measure_steps("torch", kind, weights[kind], data, rounds))
        add("passes", measure_passes(f"torch, {kind}", subject, rounds))
        add("activations", measure_activations(kind, weights[kind], data))
        add("approximation", measure_approximation(kind, weights[kind], data))
    add("steps", measure_large_steps(3))
    add("passes", measure_passes(f"torch, {LARGE}", make_large_subject(), 3))
    for framework in ("jax", "tensorflow"):
        if available_backends()[framework]:
            add("steps", measure_steps(framework, "lenet", weights["lenet"], data, rounds))
    _write(out, results)


@app.command
def attacks(
    *, data_dir: DataDir = None, mlp: Weights = None, rounds: Rounds = 7, out: Out = None
) -> None:
    """Compare DeepFool of this and other libraries: time, passes, norms of the perturbations."""
    data = load_data("mnist", data_dir=data_dir)
    rows = list(_measure_mlp(data, load_or_train("mlp", data, mlp), rounds))
    _print_rows("attacks", rows)
    _write(out, {"attacks": rows})


def _measure_mlp(data: Dataset, weights: Mapping[str, Any], rounds: int) -> Iterable[Any]:
    network = NETWORKS["mlp"](data.x_train.shape[1:], data.classes)
    return measure_attacks(training_backend("torch").build(network, weights), data, rounds)


@app.command
def strength(
    *,
    data_dir: DataDir = None,
    mlp: Weights = None,
    lenet: Weights = None,
    hardened: Annotated[Path | None, Parameter(help="Weights of a hardened LeNet, if any.")] = None,
    images: Annotated[int, Parameter(help="The number of test images.")] = 100,
    out: Out = None,
) -> None:
    """Compare the strength of the attacks of `dd.evaluate` with that of other libraries."""
    data = load_data("mnist", data_dir=data_dir)
    subjects = {"mlp": ("mlp", mlp), "lenet": ("lenet", lenet)}
    if hardened is not None:
        subjects["hardened lenet"] = ("lenet", hardened)
    results: dict[str, Rows] = {"nearest": [], "within": []}
    for title, (kind, path) in subjects.items():
        network = NETWORKS[kind](data.x_train.shape[1:], data.classes)
        model = training_backend("torch").build(network, load_or_train(kind, data, path))
        nearest = list(measure_minimum_norm(title, model, data, images))
        results["nearest"] += nearest
        _print_rows("nearest", nearest)
        for order in (2.0, math.inf):
            by_fmn = (
                row for row in nearest if row["attack"] == "fmn" and row["norm"] == f"l{order:g}"
            )
            # The first row of FMN is that of deepdefense.
            eps = round(next(by_fmn)["median"], 3)
            within = list(measure_fixed_budget(title, model, data, order, eps, images))
            results["within"] += within
            _print_rows("within", within)
        _write(out, results)  # after each network, so that an interrupted run loses only one


@app.command
def images(
    framework: Annotated[str, Parameter(help="torch, jax or tensorflow.")],
    /,
    *,
    out: Out = None,
) -> None:
    """Measure time and memory of an epoch of hardening AlexNet and ResNet-18 at 224 x 224."""
    _collect("images", (measure_images(framework, kind) for kind in ("alexnet", "resnet18")), out)


@app.command
def gpu(
    *, data_dir: DataDir = None, lenet: Weights = None, rounds: Rounds = 5, out: Out = None
) -> None:
    """Time hardening steps on a GPU: LeNet, and ResNet-18's layers at 224 x 224, 1,000 classes."""
    data = load_data("mnist", data_dir=data_dir)
    weights = load_or_train("lenet", data, lenet)
    _collect("steps", (measure_lenet(weights, data, rounds), measure_resnet18(rounds)), out)


@app.command
def job(*arguments: str, rounds: Rounds = 1, out: Out = None) -> None:
    """Time `deepdefense harden` with chosen and with all CPU threads, alone and beside others.

    Further arguments of the command follow `--`, such as `-- --epochs 10`.
    """
    _collect("job", [measure_job(arguments, rounds)], out)


def _collect(title: str, parts: Iterable[Iterable[dict[str, Any]]], out: Path | None) -> None:
    """Measure the parts in turn. After each part, print its rows and write all rows so far."""
    rows: Rows = []
    for part in parts:
        new = list(part)
        rows += new
        _print_rows(title, new)
        _write(out, {title: rows})


def _print_rows(title: str, rows: Rows) -> None:
    table = Table(title=title)
    for name in rows[0]:
        table.add_column(name)
    for row in rows:
        table.add_row(*(f"{v:.3g}" if isinstance(v, float) else str(v) for v in row.values()))
    console.print(table)


def _write(out: Path | None, results: Mapping[str, Rows]) -> None:
    content = {
        "schema": "deepdefense.bench/1",
        "command": shlex.join(["python", "-m", "benchmarks", *sys.argv[1:]]),
        "environment": describe_environment("torch") | _describe_machine(),
        **results,
    }
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        console.print(f"written to {out}")


def _describe_machine() -> dict[str, Any]:
    gpu = {"gpu": torch.cuda.get_device_name()} if torch.cuda.is_available() else {}
    return {"threads": torch.get_num_threads(), **gpu}


if __name__ == "__main__":
    app()
