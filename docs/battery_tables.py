"""Format the tables of docs/defaults.md from docs/benchmarks/battery.json.

docs/results.py writes these tables into the page.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from markdown_tables import format_table

FILE = Path(__file__).parent / "benchmarks" / "battery.json"
# The title of each count in the summary table, and the key of the number of runs it is out of.
COUNTS = {
    "reached": ("at least 95 % of the growth of the best rival", "compared"),
    "below_floor": ("accuracy below the floor", "runs"),
    "nearer": ("median distance smaller than before", "runs"),
    "clearly_nearer": ("the same, with the whole 95 % interval of the growth below 1", "runs"),
}

Row = Mapping[str, Any]


def read_battery() -> Row:
    """Return the summary of the battery."""
    summary: Row = json.loads(FILE.read_text(encoding="utf-8"))
    return summary


def format_counts() -> str:
    """Return the command that ran the battery, and the table of the numbers of each result."""
    summary = read_battery()
    table = format_table(
        ("result", "runs"),
        ((title, f"{summary[key]} of {summary[total]}") for key, (title, total) in COUNTS.items()),
    )
    return f"`{summary['command']}`\n\n{table}"


def format_runs() -> str:
    """Return the table of all pairs, with a line for each framework, over the seeds."""
    head = ("data and network", "framework", "accuracy, %", "growth", "best rival", "seconds")
    groups: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for line in read_battery()["lines"]:
        groups[line["title"], line["framework"]].append(line)
    return format_table(head, (list_cells(*key, lines) for key, lines in groups.items()))


def list_cells(title: str, framework: str, lines: list[Row]) -> Iterable[str]:
    """Return the cells of one pair in one framework; a cell has a value for each seed."""

    def join(cell: Callable[[Row], str]) -> str:
        return ", ".join(map(cell, lines))

    return (
        title,
        framework,
        join(
            lambda line: (
                f"{100 * line['accuracy_before']:.1f} → {100 * line['accuracy_after']:.1f}"
                + " (below the floor)" * line["below_floor"]
            )
        ),
        join(lambda line: format_growth(line["growth"]) + " (behind)" * (line["reached"] is False)),
        join(format_best),
        join(lambda line: f"{line['seconds']:.0f}"),
    )


def format_best(line: Row) -> str:
    """Return the growth and the name of the best rival of a run, or nothing without rivals."""
    if line["best"] is None:
        return ""
    return f"{format_growth(line['best_growth'])} {line['best']}"


def format_growth(growth: float | None) -> str:
    """Return a factor as text."""
    return "no figure" if growth is None else f"x{growth:.2f}"


BATTERY_TABLES: dict[str, Callable[[], str]] = {"counts": format_counts, "runs": format_runs}
