"""The command line of the battery: `python -m benchmarks.battery --data-dir FOLDER`.

Each run of a pair with a seed in a framework writes a JSON file when it is done. Runs that have a
file are not repeated, so an interrupted battery can be continued. At the end, all files of the
folder are summarised.
"""

from __future__ import annotations

import json
import os
import shlex
import sys
import time
import traceback
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, Parameter
from rich.console import Console

from benchmarks.battery.pairs import PAIRS
from benchmarks.battery.rivals import RATES
from benchmarks.battery.runs import Options, run_pair
from benchmarks.battery.summary import SUMMARY_SCHEMA, summarise
from deepdefense.evaluation.provenance import describe_environment
from deepdefense.seam.choosing import available_backends

FRAMEWORKS = ("torch", "jax", "tensorflow")
Job = tuple[str, str, int]  # pair, framework, seed

app = App(name="battery", help="Compare dd.harden, with no setting given, with other methods.")
console = Console(highlight=False, soft_wrap=True)


@app.default
def run_battery(
    *,
    data_dir: Annotated[Path | None, Parameter(help="Folder with mnist/ and cifar10/.")] = None,
    pairs: Annotated[
        tuple[str, ...], Parameter(consume_multiple=True, help="Pairs of data and network to run.")
    ] = tuple(PAIRS),
    seeds: Annotated[
        tuple[int, ...],
        Parameter(consume_multiple=True, help="Seeds of the data, the network and the training."),
    ] = (0, 1, 2),
    frameworks: Annotated[
        tuple[str, ...], Parameter(consume_multiple=True, help="Frameworks to run in.")
    ] = FRAMEWORKS,
    only_default: Annotated[bool, Parameter(help="Run dd.harden, and no rival.")] = False,
    again: Annotated[
        bool,
        Parameter(
            help="Repeat finished runs. Rivals that took as many steps from the same network are "
            "not trained again."
        ),
    ] = False,
    rates: Annotated[
        tuple[float, ...], Parameter(consume_multiple=True, help="Learning rates of the rivals.")
    ] = RATES,
    steps: Annotated[int | None, Parameter(show=False)] = None,
    runs: Annotated[Path, Parameter(help="Folder of the runs' JSON files.")] = Path("runs/battery"),
    out: Annotated[Path | None, Parameter(help="JSON file of the summary to write.")] = None,
) -> None:
    """Run the pairs in each framework with each seed, and summarise all finished runs."""
    options = Options(data_dir, only_default, steps, rates)
    failed = []
    for job in _list_jobs(pairs, frameworks, seeds, data_dir):
        path = runs / f"{'-'.join(map(str, job))}.json"
        previous = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
        if previous and not again and (previous["complete"] or only_default):
            continue
        try:
            _run_job(job, options, path, previous)
        except Exception:
            console.print(traceback.format_exc(), markup=False)
            failed.append(path.stem)
    files = sorted(runs.glob("*.json"))
    summary = summarise([json.loads(file.read_text(encoding="utf-8")) for file in files])
    _print_summary(summary)
    if out is not None:
        content = {
            "schema": SUMMARY_SCHEMA,
            "command": shlex.join(["python", "-m", "benchmarks.battery", *sys.argv[1:]]),
            "environment": describe_environment("torch"),
            **summary,
        }
        _write(out, content)
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


def _list_jobs(
    pairs: tuple[str, ...],
    frameworks: tuple[str, ...],
    seeds: tuple[int, ...],
    data_dir: Path | None,
) -> Iterator[Job]:
    """Yield the runs, framework by framework, and say which pairs are skipped."""
    if unknown := set(pairs) - set(PAIRS):
        sys.exit(f"unknown pairs {', '.join(sorted(unknown))}: there are {', '.join(PAIRS)}")
    available = available_backends()
    for framework in frameworks:
        if not available.get(framework):
            console.print(f"{framework}: skipped, it is not installed")
            continue
        for name in pairs:
            pair = PAIRS[name]
            if framework not in pair.builders:
                continue
            if pair.needs and not (data_dir and (data_dir / pair.needs).is_dir()):
                console.print(f"{name}: skipped, --data-dir has no {pair.needs}")
                continue
            yield from ((name, framework, seed) for seed in seeds)


def _run_job(job: Job, options: Options, path: Path, previous: dict[str, Any] | None) -> None:
    """Run one pair, and write its file."""
    name, framework, seed = job
    console.print(f"{name}, {framework}, seed {seed}")
    start = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result = run_pair(
            name,
            PAIRS[name],
            framework,
            seed,
            options,
            previous=previous,
            say=lambda line: console.print(f"  {line}"),
        )
    _write(path, {**result, "total_seconds": time.perf_counter() - start})


def _write(path: Path, content: dict[str, Any]) -> None:
    """Write a JSON file whole, so that an interruption leaves the old file or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    part.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    part.replace(path)
    console.print(f"  written to {path}")


def _print_summary(summary: dict[str, Any]) -> None:
    for line in summary["lines"]:
        growth = "unmeasured" if line["growth"] is None else f"x{line['growth']:.2f}"
        points = 100 * (line["accuracy_after"] - line["accuracy_before"])
        marks = [key for key in ("below_floor", "nearer") if line[key]]
        marks += ["behind"] * (line["reached"] is False)
        best = "" if line["best"] is None else f", best: {line['best']} x{line['best_growth']:.2f}"
        console.print(
            f"{line['pair']}, {line['framework']}, seed {line['seed']}: {growth} at {points:+.1f} "
            f"points{best} {' '.join(marks)}"
        )
    console.print(
        f"{summary['reached']} of {summary['compared']} runs reach 95 % of the best rival's "
        f"growth; of {summary['runs']} runs, {summary['below_floor']} are below the accuracy "
        f"floor, {summary['nearer']} nearer to the boundary"
    )


if __name__ == "__main__":
    app()
