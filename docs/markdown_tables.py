"""Tables in Markdown."""

from __future__ import annotations

from collections.abc import Iterable


def format_table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Return a table in Markdown."""
    lines = [list(head), *map(list, rows)]
    lines.insert(1, ["---"] * len(lines[0]))
    return "".join(f"| {' | '.join(line)} |\n".replace("| --- ", "|---") for line in lines)
