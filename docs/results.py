"""Write the tables of README.md and docs/*.md from JSON results: `python docs/results.py`.

`python docs/results.py --check` changes no file. It fails if a table differs from its JSON file, or
if a relative link in a Markdown page leads to no file.
"""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from battery_tables import BATTERY_TABLES
from markdown_tables import format_table
from settings_tables import SETTINGS_TABLES

from deepdefense.app.study.views import VIEWS, format_markdown

ROOT = Path(__file__).parent.parent
# Accuracy and rho_2 after hardening in the paper (Yan, Guo and Zhang, 2018, table 1), for each data
# set and network. The values are quoted from memory and were not checked against the paper.
PAPER = {
    ("mnist", "mlp"): "98.65 %, .225",
    ("mnist", "lenet"): "99.34 %, .284",
    ("cifar10", "convnet"): "81.70 % (from 79.74), .0532 (from .0259)",
    ("cifar10", "nin"): "89.96 % (from 89.64), .0558 (from .0420)",
}
FRAMEWORKS = ("torch", "jax", "tensorflow")
# The keys of a row of `table1` of which the summary shows the means over seeds.
SUMMARISED = ("accuracy", "rho_2", "growth", "growth_deepfool")
LINK = re.compile(r"\]\(([^)#:]+)[^):]*\)")  # matches a relative link; group 1 has no anchor
Row = Mapping[str, Any]  # a JSON object: a report, or one row of measurements
Cell = Callable[[Row], str]  # returns the text of one table cell for a row


def read_results(schema: str) -> list[Row]:
    """Return the content of each file in docs/results that has this schema, sorted by file name."""
    files = sorted((ROOT / "docs/results").glob("*.json"))
    return [row for p in files if (row := json.loads(p.read_text()))["schema"] == schema]


def read_benchmark(part: str, file: str = "cpu") -> list[Row]:
    """Return the rows of one part of docs/benchmarks/FILE.json, such as the part "steps"."""
    rows: list[Row] = json.loads((ROOT / f"docs/benchmarks/{file}.json").read_text())[part]
    return rows


def format_hardening() -> str:
    """Return the table of hardening runs, with accuracy and rho_2 before and after hardening."""
    head = "data, network|gradient|accuracy|rho_2|paper (from memory)|settings|step / plain"
    reports = read_results("deepdefense.harden/1")
    return format_table(head.split("|"), map(list_hardening_cells, reports))


def list_hardening_cells(report: Row) -> Iterable[str]:
    """Return the cells of one row of the table of hardening runs."""
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


def format_study(table: str) -> str:
    """Return all results of one table of `deepdefense reproduce`.

    Each result file has a table of its own, below the command that wrote the file.
    """
    files = [row for row in read_results("deepdefense.reproduce/1") if row["table"] == table]
    return "\n".join(
        f"`{row['command']}`\n\n{format_markdown(table, row['rows'])}" for row in files
    )


def summarise_study() -> str:
    """Return a summary of the results of Deep Defense in the study's `table1`.

    If several files have results for the same data, network, epochs and method, the summary uses
    the file with the most seeds.
    """
    head = ("data, network", "method", "seeds", "paper", "accuracy", "ρ₂")
    head += ("times the median distance", "of DeepFool's growth")
    groups: dict[tuple[str, str, int, str], list[Row]] = {}
    files = [row for row in read_results("deepdefense.reproduce/1") if row["table"] == "table1"]
    for rows in sorted((file["rows"] for file in files), key=lambda rows: len(collect_seeds(rows))):
        of_file: dict[tuple[str, str, int, str], list[Row]] = {}
        for row in rows:
            key = row["data"], row["network"], row["epochs"] or 0, row["method"]
            of_file.setdefault(key, []).append(row)
        groups |= of_file
    return format_table(
        head,
        (
            list_summary_cells(groups[data, network, 0, "reference"], rows)
            for (data, network, _, method), rows in sorted(groups.items())
            if method in ("deepdefense", "nearest", "image")
        ),
    )


def list_summary_cells(references: list[Row], rows: list[Row]) -> Iterable[str]:
    """Return the cells of one row of the summary: means over seeds, before and after hardening."""
    old, new = ({key: average(side, key) for key in SUMMARISED} for side in (references, rows))
    first = rows[0]
    return (
        f"{first['data']}, {first['network']}, {first['epochs']} epochs",
        first["label"].removeprefix("Deep Defense, "),
        str(len(collect_seeds(rows))),
        PAPER[first["data"], first["network"]],
        f"{100 * old['accuracy']:.2f} → {100 * new['accuracy']:.2f} %",
        f"{old['rho_2']:.3g} → {new['rho_2']:.3g}",
        *format_growth(new["growth"], new["growth_deepfool"]),
    )


def collect_seeds(rows: list[Row]) -> set[int]:
    """Return the set of random seeds that occur in these rows."""
    return {row["seed"] for row in rows}


def format_growth(best: float, deepfool: float) -> tuple[str, str]:
    """Return two cells about the growth of the median distance through hardening.

    `best` and `deepfool` are the growth factors measured by the best attack and by DeepFool. The
    first cell shows `best`. The second shows (best - 1) / (deepfool - 1), as a percentage. Both
    are empty if `best` is NaN.
    """
    if math.isnan(best):
        return "", ""
    return f"{best:.2f}", f"{(best - 1) / (deepfool - 1):.0%}"


def average(rows: list[Row], key: str) -> float:
    """Return the mean of `key` over the rows, or NaN if a row has no value."""
    return sum(math.nan if row[key] is None else row[key] for row in rows) / len(rows)


def format_rows(rows: Iterable[Row], columns: Mapping[str, Cell]) -> str:
    """Return a table with one line for each row; `columns` maps each title to its cells."""
    return format_table(columns, ([cell(row) for cell in columns.values()] for row in rows))


def format_side_by_side(rows: list[Row], keys: Iterable[str], cell: Cell) -> str:
    """Return a table that compares the methods, with one column for each method.

    It has one line for each combination of values that `keys` have in the rows. The method "plain"
    gets no column, because the other methods are measured relative to it.
    """
    methods = list(dict.fromkeys(row["way"] for row in rows if row["way"] != "plain"))
    lines: dict[tuple[str, ...], dict[str, str]] = {}
    for row in rows:
        subject = tuple(format(row[name]) for name in keys)
        lines.setdefault(subject, {})[row["way"]] = cell(row)
    return format_table(
        [*[""] * len(next(iter(lines))), *methods],
        ([*subject, *(cells.get(way, "") for way in methods)] for subject, cells in lines.items()),
    )


def show_text(name: str) -> Cell:
    """Return a function that formats the value of `name` in a row as text."""
    return lambda row: str(row[name])


def show_number(name: str, form: str = ".1f", factor: float = 1) -> Cell:
    """Return a function that formats the number `name` of a row, multiplied by `factor`.

    A text in place of the number stays unchanged, and None becomes an empty cell.
    """

    def cell(row: Row) -> str:
        value = row[name]
        return format(factor * value, form) if isinstance(value, int | float) else value or ""

    return cell


def show_distance(row: Row) -> str:
    """Return a row's median distance, and the share of fooled examples if it is below 100 %."""
    share = f" ({row['fooled']:.0%} fooled)" if row["fooled"] < 1 else ""
    return ("none" if row["median"] is None else format(row["median"], ".4g")) + share


def show_floor(row: Row) -> str:
    """Return the time of a step without the arithmetic on perturbations, in plain steps."""
    return format(row["ratio"] * (row["passes_share"] + row["backward_share"]), ".1f")


SUBJECT_AND_METHOD = {"": show_text("subject"), "method": show_text("way")}
TABLES: dict[str, dict[str, Callable[[], str]]] = {
    "README.md": {"results": format_hardening},
    "docs/settings.md": SETTINGS_TABLES,
    "docs/defaults.md": BATTERY_TABLES,
    "docs/cost.md": {
        "steps": lambda: format_side_by_side(
            read_benchmark("steps"), ["subject"], show_number("ratio")
        ),
        "passes": lambda: format_rows(
            read_benchmark("passes"),
            {
                **SUBJECT_AND_METHOD,
                "forward passes": show_number("forward_passes"),
                "input gradients": show_number("input_gradients"),
                "multiply-adds": show_number("multiply_adds"),
                "time of these passes": show_number("passes_share", ".0%"),
                "time of backward pass and optimizer": show_number("backward_share", ".0%"),
                "both, in plain steps": show_floor,
            },
        ),
        "activations": lambda: format_side_by_side(
            read_benchmark("activations"), ["subject"], show_number("ratio")
        ),
        "approximation": lambda: format_rows(
            read_benchmark("approximation"),
            {
                **SUBJECT_AND_METHOD,
                "images": show_text("images"),
                "median error": show_number("error_median", "+.1%"),
                "median absolute error": show_number("size_median", ".1%"),
                "95th percentile": show_number("size_95", ".1%"),
            },
        ),
        "images": lambda: format_rows(
            [row for file in FRAMEWORKS for row in read_benchmark("images", f"images-{file}")],
            {
                **SUBJECT_AND_METHOD,
                "step / plain": show_number("ratio"),
                "seconds an image": show_number("seconds_per_example", ".2f"),
                "MB an image": show_number("mb_per_example", ".0f"),
                "peak of the process, MB": show_number("peak_mb", ".0f"),
            },
        ),
        "gpu": lambda: format_rows(
            read_benchmark("steps", "gpu"),
            {
                "": show_text("subject"),
                "batch": show_text("batch"),
                "precision": show_text("dtype"),
                "method": show_text("way"),
                "milliseconds a step": show_number("seconds", ".0f", 1000),
                "step / plain": show_number("ratio"),
                "share of plain throughput": show_number("share of plain throughput", ".0%"),
                "memory, GB": show_number("memory_mb", ".1f", 1 / 1024),
            },
        ),
        "attacks": lambda: format_rows(
            read_benchmark("attacks", "attacks"),
            {
                "": show_text("subject"),
                "attack": show_text("way"),
                "images": show_text("images"),
                "seconds": show_number("seconds", ".2f"),
                "time, ours / theirs": show_number("ratio", ".2f"),
                "forward passes an image": show_number("forward_passes"),
                "input gradients an image": show_number("input_gradients"),
                "seconds of these passes alone": show_number("passes_seconds", ".2f"),
                "mean norm": show_number("norm_mean", ".4g"),
                "success": show_number("success", ".0%"),
            },
        ),
    },
    "docs/study.md": {
        "summary": summarise_study,
        **{name: lambda name=name: format_study(name) for name in VIEWS},
    },
    "docs/evaluation.md": {
        "nearest": lambda: format_side_by_side(
            read_benchmark("nearest", "strength"), ["subject", "attack", "norm"], show_distance
        ),
        "within": lambda: format_side_by_side(
            read_benchmark("within", "strength"),
            ["subject", "norm", "eps", "attacks"],
            show_number("accuracy", ".0%"),
        ),
    },
}


def fill_tables(page: str, tables: Mapping[str, Callable[[], str]]) -> str:
    """Return the page with a new table between each pair of markers.

    `tables` maps the name in the markers to the function that returns the table.
    """
    for name, content in tables.items():
        begin, end = f"<!-- {name}: written by docs/results.py -->\n", f"<!-- /{name} -->\n"
        head, _, rest = page.partition(begin)
        _, _, tail = rest.partition(end)
        page = f"{head}{begin}{content()}{end}{tail}"
    return page


def find_broken_links() -> list[str]:
    """Return one message for each relative link of a Markdown page that leads to no file."""
    return [
        f"{page.relative_to(ROOT)} links to {link}, which does not exist"
        for page in (*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"))
        for link in LINK.findall(page.read_text(encoding="utf-8"))
        if not (page.parent / link).exists()
    ]


if __name__ == "__main__":
    check = "--check" in sys.argv
    for page, tables in TABLES.items():
        path = ROOT / page
        old = path.read_text(encoding="utf-8")
        new = fill_tables(old, tables)
        if not check:
            path.write_text(new, encoding="utf-8")
        elif new != old:
            sys.exit(f"{page} is not what docs/results.py writes: run it")
    if check and (broken := find_broken_links()):
        sys.exit("\n".join(broken))
