"""Write the tables of README.md and docs/*.md from what runs left: `python docs/results.py`."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from deepdefense.app.study.views import VIEWS, format_markdown

ROOT = Path(__file__).parent.parent
# The paper's accuracy and rho_2 after hardening (Yan, Guo and Zhang, 2018, table 1), as remembered:
# not checked against the paper.
PAPER = {
    ("mnist", "mlp"): "98.65 %, .225",
    ("mnist", "lenet"): "99.34 %, .284",
    ("cifar10", "convnet"): "81.70 % (from 79.74), .0532 (from .0259)",
    ("cifar10", "nin"): "89.96 % (from 89.64), .0558 (from .0420)",
}
FRAMEWORKS = ("torch", "jax", "tensorflow")
FIGURES = ("accuracy", "rho_2", "growth", "growth_deepfool")
Row = Mapping[str, Any]


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A table in Markdown."""
    lines = [list(head), *map(list, rows)]
    lines.insert(1, ["---"] * len(lines[0]))
    return "".join(f"| {' | '.join(line)} |\n".replace("| --- ", "|---") for line in lines)


def hardened(report: Row) -> Iterable[str]:
    """One line of the README's table."""
    before, after, config = report["before"], report["after"], report["config"]
    data, network = report["data"]["name"], report["network"]["name"]
    return (
        f"{data}, {network}",
        "fast (chord)" if config["gradient"] == "chord" else config["gradient"],
        f"{100 * before['accuracy']:.2f} → {100 * after['accuracy']:.2f} %",
        f"{before['rho_2']:.4f} → {after['rho_2']:.4f}",
        PAPER.get((data, network), ""),
        f"{config['epochs']} epochs, lr {config['lr']:g}, λ {config['lam']:g}, c {config['c']:g}",
        f"{report['cost']['ratio']:.1f}",
    )


def kept(schema: str) -> list[Row]:
    """What commands of that schema left in docs/results."""
    files = sorted((ROOT / "docs/results").glob("*.json"))
    return [row for p in files if (row := json.loads(p.read_text()))["schema"] == schema]


def study(table: str) -> str:
    """A table of `deepdefense reproduce`, each file of it under its command."""
    found = [row for row in kept("deepdefense.reproduce/1") if row["table"] == table]
    return "\n".join(
        f"`{row['command']}`\n\n{format_markdown(table, row['rows'])}" for row in found
    )


def summary() -> str:
    """Deep Defense in the first tables, beside the paper; each network from that of most seeds."""
    head = "data, network|method|seeds|paper|accuracy|ρ₂|times the median distance|of DeepFool's growth"
    found: dict[tuple[str, str, int, str], list[Row]] = {}
    tables = [row for row in kept("deepdefense.reproduce/1") if row["table"] == "table1"]
    for rows in sorted((row["rows"] for row in tables), key=lambda rows: len(seeds_of(rows))):
        groups: dict[tuple[str, str, int, str], list[Row]] = {}
        for row in rows:
            key = row["data"], row["network"], row["epochs"] or 0, row["method"]
            groups.setdefault(key, []).append(row)
        found |= groups
    return table(
        head.split("|"),
        (
            beside(found[data, network, 0, "reference"], rows)
            for (data, network, _, way), rows in sorted(found.items())
            if way in ("deepdefense", "nearest", "image")
        ),
    )


def seeds_of(rows: list[Row]) -> set[int]:
    """Which seeds there are."""
    return {row["seed"] for row in rows}


def beside(references: list[Row], rows: list[Row]) -> Iterable[str]:
    """One line of the summary: means over seeds, before and after."""
    old, new = ({key: mean(own, key) for key in FIGURES} for own in (references, rows))
    first = rows[0]
    return (
        f"{first['data']}, {first['network']}, {first['epochs']} epochs",
        first["label"].removeprefix("Deep Defense, "),
        str(len(seeds_of(rows))),
        PAPER[first["data"], first["network"]],
        f"{100 * old['accuracy']:.2f} → {100 * new['accuracy']:.2f} %",
        f"{old['rho_2']:.3g} → {new['rho_2']:.3g}",
        *grown(new["growth"], new["growth_deepfool"]),
    )


def grown(best: float, deepfool: float) -> tuple[str, str]:
    """The growth, and its share of DeepFool's; of a network mostly wrong the median is 0."""
    if math.isnan(best):
        return "", ""
    return f"{best:.2f}", f"{(best - 1) / (deepfool - 1):.0%}"


def mean(rows: list[Row], key: str) -> float:
    """Over rows; not a number if a row has none."""
    return sum(math.nan if row[key] is None else row[key] for row in rows) / len(rows)


def results() -> str:
    """Hardening runs, before and after."""
    reports = kept("deepdefense.harden/1")
    head = "data, network|gradient|accuracy|rho_2|paper (from memory)|settings|step / plain"
    return table(head.split("|"), map(hardened, reports))


def benchmark(part: str, file: str = "cpu") -> list[Row]:
    """The rows of one part of a benchmark."""
    rows: list[Row] = json.loads((ROOT / f"docs/benchmarks/{file}.json").read_text())[part]
    return rows


def measured(rows: Iterable[Row], head: Mapping[str, Callable[[Row], str]]) -> str:
    """Rows as they are, a column for each name."""
    return table(head, ([cell(row) for cell in head.values()] for row in rows))


def each_way(rows: list[Row], down: Iterable[str], value: Callable[[Row], str]) -> str:
    """Rows side by side: what was measured down, by those columns, and the ways across."""
    ways = list(dict.fromkeys(row["way"] for row in rows if row["way"] != "plain"))
    lines: dict[tuple[str, ...], dict[str, str]] = {}
    for row in rows:
        subject = tuple(format(row[name]) for name in down)
        lines.setdefault(subject, {})[row["way"]] = value(row)
    return table(
        [*[""] * len(next(iter(lines))), *ways],
        ([*subject, *(cells.get(way, "") for way in ways)] for subject, cells in lines.items()),
    )


def distance(row: Row) -> str:
    """A median distance, with the share that was fooled if not all were."""
    few = f" ({row['fooled']:.0%} fooled)" if row["fooled"] < 1 else ""
    return ("none" if row["median"] is None else format(row["median"], ".4g")) + few


def named(name: str) -> Callable[[Row], str]:
    """A column of text."""
    return lambda row: str(row[name])


def floor(row: Row) -> str:
    """What a step would take without any arithmetic of its own."""
    return format(row["ratio"] * (row["passes_share"] + row["backward_share"]), ".1f")


def figure(name: str, form: str = ".1f", unit: float = 1) -> Callable[[Row], str]:
    """A column of numbers, in that many of its units; words stand as they are."""

    def cell(row: Row) -> str:
        value = row[name]
        return format(unit * value, form) if isinstance(value, int | float) else value or ""

    return cell


TABLES: dict[str, dict[str, Callable[[], str]]] = {
    "README.md": {"results": results},
    "docs/cost.md": {
        "steps": lambda: each_way(benchmark("steps"), ["subject"], figure("ratio")),
        "passes": lambda: measured(
            benchmark("passes"),
            {
                "": named("subject"),
                "method": named("way"),
                "forward passes": figure("forward_passes"),
                "input gradients": figure("input_gradients"),
                "multiply-adds": figure("multiply_adds"),
                "time of these passes": figure("passes_share", ".0%"),
                "time of backward pass and optimizer": figure("backward_share", ".0%"),
                "both, in plain steps": floor,
            },
        ),
        "activations": lambda: each_way(benchmark("activations"), ["subject"], figure("ratio")),
        "approximation": lambda: measured(
            benchmark("approximation"),
            {
                "": named("subject"),
                "method": named("way"),
                "images": named("images"),
                "median error": figure("error_median", "+.1%"),
                "median of its size": figure("size_median", ".1%"),
                "95th percentile": figure("size_95", ".1%"),
            },
        ),
        "images": lambda: measured(
            [row for file in FRAMEWORKS for row in benchmark("images", f"images-{file}")],
            {
                "": named("subject"),
                "method": named("way"),
                "step / plain": figure("ratio"),
                "seconds an image": figure("seconds_per_example", ".2f"),
                "MB an image": figure("mb_per_example", ".0f"),
                "peak of the process, MB": figure("peak_mb", ".0f"),
            },
        ),
        "gpu": lambda: measured(
            benchmark("steps", "gpu"),
            {
                "": named("subject"),
                "batch": named("batch"),
                "precision": named("dtype"),
                "method": named("way"),
                "milliseconds a step": figure("seconds", ".0f", 1000),
                "step / plain": figure("ratio"),
                "share of plain throughput": figure("share of plain throughput", ".0%"),
                "memory, GB": figure("memory_mb", ".1f", 1 / 1024),
            },
        ),
        "attacks": lambda: measured(
            benchmark("attacks", "attacks"),
            {
                "": named("subject"),
                "attack": named("way"),
                "images": named("images"),
                "seconds": figure("seconds", ".2f"),
                "time, ours / theirs": figure("ratio", ".2f"),
                "forward passes an image": figure("forward_passes"),
                "input gradients an image": figure("input_gradients"),
                "seconds of these passes alone": figure("passes_seconds", ".2f"),
                "mean norm": figure("norm_mean", ".4g"),
                "success": figure("success", ".0%"),
            },
        ),
    },
    "docs/study.md": {"summary": summary} | {name: lambda name=name: study(name) for name in VIEWS},
    "docs/evaluation.md": {
        "nearest": lambda: each_way(
            benchmark("nearest", "strength"), ["subject", "attack", "norm"], distance
        ),
        "within": lambda: each_way(
            benchmark("within", "strength"),
            ["subject", "norm", "eps", "attacks"],
            figure("accuracy", ".0%"),
        ),
    },
}


def filled(text: str, tables: Mapping[str, Callable[[], str]]) -> str:
    """A page with its tables made anew."""
    for name, content in tables.items():
        begin, end = f"<!-- {name}: written by docs/results.py -->\n", f"<!-- /{name} -->\n"
        head, _, rest = text.partition(begin)
        _, _, tail = rest.partition(end)
        text = f"{head}{begin}{content()}{end}{tail}"
    return text


if __name__ == "__main__":
    for page, tables in TABLES.items():
        path = ROOT / page
        old = path.read_text(encoding="utf-8")
        new = filled(old, tables)
        if "--check" not in sys.argv:
            path.write_text(new, encoding="utf-8")
        elif new != old:
            sys.exit(f"{page} is not what docs/results.py writes: run it")
