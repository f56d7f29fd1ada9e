"""Measure all of it, print one table, and write it: `python -m benchmarks --out FILE.json`."""

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

from benchmarks import gpu as on_gpu
from benchmarks import subjects
from benchmarks.attacks import peers
from benchmarks.hardening import many_classes, steps
from benchmarks.insides import activations, approximation, passes
from benchmarks.large import large
from benchmarks.strength import nearest, within
from benchmarks.subjects import of_zoo, trained
from deepdefense.app.data import load
from deepdefense.evaluation.dataset import Dataset
from deepdefense.evaluation.provenance import describe_environment
from deepdefense.seam.choosing import available_backends
from deepdefense.seam.training import training_backend
from deepdefense.zoo import NETWORKS

app = App(name="benchmarks", help="What hardening and attacks cost, as ratios in one process.")
console = Console()
KINDS = ("mlp", "lenet")
Rows = list[dict[str, Any]]
DataDir = Annotated[Path | None, Parameter(help="Folder with a copy of mnist.")]
Weights = Annotated[Path | None, Parameter(help="Weights; trained here if not given.")]
Out = Annotated[Path | None, Parameter(help="JSON file to write.")]


def _show(title: str, rows: Rows) -> None:
    table = Table(title=title)
    for name in rows[0]:
        table.add_column(name)
    for row in rows:
        table.add_row(*(f"{v:.3g}" if isinstance(v, float) else str(v) for v in row.values()))
    console.print(table)


@app.default
def main(
    *,
    data_dir: DataDir = None,
    mlp: Weights = None,
    lenet: Weights = None,
    rounds: Annotated[int, Parameter(help="How often everything is timed.")] = 11,
    out: Out = None,
) -> None:
    """Hardening steps, passes, activations, and DeepFool beside its peers, on MNIST."""
    data = load("mnist", data_dir=data_dir)
    weights = {k: trained(k, data, path) for k, path in zip(KINDS, (mlp, lenet), strict=True)}
    found: dict[str, Rows] = {}

    def keep(title: str, rows: Iterable[Mapping[str, Any]]) -> None:
        new = list(map(dict, rows))
        found.setdefault(title, []).extend(new)
        _show(title, new)

    keep("attacks", _peers(data, weights["mlp"], 3))
    for kind in KINDS:
        keep("steps", steps("torch", kind, weights[kind], data, rounds))
        keep("passes", passes(f"torch, {kind}", of_zoo(kind, weights[kind], data), rounds))
        keep("activations", activations(kind, weights[kind], data))
        keep("approximation", approximation(kind, weights[kind], data))
    keep("steps", many_classes(3))
    title = f"torch, resnet18-shaped, {subjects.CLASSES} classes"
    keep("passes", passes(title, subjects.many_classes(), 3))
    for framework in ("jax", "tensorflow"):
        if available_backends()[framework]:
            keep("steps", steps(framework, "lenet", weights["lenet"], data, rounds))
    _write(out, found)


@app.command
def attacks(
    *,
    data_dir: DataDir = None,
    mlp: Weights = None,
    rounds: Annotated[int, Parameter(help="How often everything is timed.")] = 7,
    out: Out = None,
) -> None:
    """DeepFool beside its peers alone, with the passes that each one makes."""
    data = load("mnist", data_dir=data_dir)
    rows = list(_peers(data, trained("mlp", data, mlp), rounds))
    _show("attacks", rows)
    _write(out, {"attacks": rows})


def _peers(data: Dataset, weights: Mapping[str, Any], rounds: int) -> Iterable[dict[str, Any]]:
    network = NETWORKS["mlp"](data.x_train.shape[1:], data.classes)
    return peers(training_backend("torch").build(network, weights), data, rounds)


@app.command
def strength(
    *,
    data_dir: DataDir = None,
    mlp: Weights = None,
    lenet: Weights = None,
    hardened: Annotated[Path | None, Parameter(help="Weights of a hardened LeNet, if any.")] = None,
    images: Annotated[int, Parameter(help="Of the test set.")] = 100,
    out: Out = None,
) -> None:
    """The attacks of an evaluation beside their peers: how near, not how fast."""
    data = load("mnist", data_dir=data_dir)
    kinds = {"mlp": ("mlp", mlp), "lenet": ("lenet", lenet)}
    if hardened is not None:
        kinds["hardened lenet"] = ("lenet", hardened)
    found: dict[str, Rows] = {"nearest": [], "within": []}
    for title, (kind, path) in kinds.items():
        network = NETWORKS[kind](data.x_train.shape[1:], data.classes)
        model = training_backend("torch").build(network, trained(kind, data, path))
        new = list(nearest(title, model, data, images))
        found["nearest"] += new
        _show("nearest", new)
        for order in (2.0, math.inf):
            own = (row for row in new if row["attack"] == "fmn" and row["norm"] == f"l{order:g}")
            eps = round(next(own)["median"], 3)
            held = list(within(title, model, data, order, eps, images))
            found["within"] += held
            _show("within", held)
        _write(out, found)  # what is measured so far


@app.command
def images(
    framework: Annotated[str, Parameter(help="torch, jax or tensorflow.")],
    /,
    *,
    out: Out = None,
) -> None:
    """An epoch of hardening AlexNet and ResNet-18 at 224 x 224: time and memory an example."""
    _collect("images", (large(framework, kind) for kind in ("alexnet", "resnet18")), out)


@app.command
def gpu(
    *,
    data_dir: DataDir = None,
    lenet: Weights = None,
    rounds: Annotated[int, Parameter(help="How often everything is timed.")] = 5,
    out: Out = None,
) -> None:
    """Hardening steps on a GPU: LeNet, and ResNet-18's layers at 224 x 224 with 1,000 classes."""
    data = load("mnist", data_dir=data_dir)
    weights = trained("lenet", data, lenet)
    _collect("steps", (on_gpu.lenet(weights, data, rounds), on_gpu.resnet18(rounds)), out)


def _collect(title: str, parts: Iterable[Iterable[dict[str, Any]]], out: Path | None) -> None:
    """Measure one part after another; each is shown, and written with those before it."""
    found: Rows = []
    for part in parts:
        new = list(part)
        found += new
        _show(title, new)
        _write(out, {title: found})


def _write(out: Path | None, found: Mapping[str, Rows]) -> None:
    content = {
        "schema": "deepdefense.bench/1",
        "command": shlex.join(["python", "-m", "benchmarks", *sys.argv[1:]]),
        "environment": describe_environment("torch") | _machine(),
        **found,
    }
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        console.print(f"written to {out}")


def _machine() -> dict[str, Any]:
    gpu = {"gpu": torch.cuda.get_device_name()} if torch.cuda.is_available() else {}
    return {"threads": torch.get_num_threads(), **gpu}


if __name__ == "__main__":
    app()
