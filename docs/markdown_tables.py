"""Format Markdown tables, for docs/results.py and docs/settings_tables.py."""

from __future__ import annotations

from collections.abc import Iterable


def format_table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Return a Markdown table with these column titles and rows of cells."""
    lines = [list(head), *map(list, rows)]
    lines.insert(1, ["---"] * len(lines[0]))
    return "".join(f"| {' | '.join(line)} |\n".replace("| --- ", "|---") for line in lines)
