"""Format the study's tables as text.

VIEWS holds the columns, headings and number formats of each table.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

__all__ = ["VIEWS", "format_markdown", "format_table"]

# A function that turns the values of a figure for several seeds into the text of one cell.
CellFormat = Callable[[list[Any]], str]


def average_seeds(form: Callable[[float], str]) -> CellFormat:
    """Return a function that formats the values of several seeds as mean ± standard deviation.

    `form` formats the mean and the deviation. Values that are None are left out.
    """

    def format_cell(values: list[Any]) -> str:
        numbers = [float(value) for value in values if value is not None]
        if not numbers:
            return ""
        mean = form(float(np.mean(numbers)))
        return mean if len(numbers) == 1 else f"{mean} ± {form(float(np.std(numbers, ddof=1)))}"

    return format_cell


PERCENT_CELL = average_seeds(lambda value: f"{100 * value:.2f} %")
NUMBER_CELL = average_seeds(lambda value: f"{value:.4g}")
RATIO_CELL = average_seeds(lambda value: f"{value:.2f}")
WHOLE_CELL = average_seeds(lambda value: f"{value:.0f}")


class TableView(NamedTuple):
    """The layout of a table: how the rows of its JSON file become lines and columns.

    All rows with the same values under the keys of `by` become one line. If `across` is None, each
    figure has a column. Otherwise `across` is a key of the rows, such as "label", and each value
    under it has a column, whose cells hold all figures, separated by commas.
    """

    by: Mapping[str, str]  # {key of a row: heading of its column}
    columns: Mapping[str, tuple[str, CellFormat]]  # {key of a figure in a row: (heading, format)}
    across: str | None = None


NETWORK_COLUMNS = {"data": "data", "network": "network"}
METHOD_COLUMNS = {**NETWORK_COLUMNS, "label": "method"}
VIEWS: Mapping[str, TableView] = {
    "table1": TableView(
        METHOD_COLUMNS,
        {
            "accuracy": ("accuracy", PERCENT_CELL),
            "rho_2": ("rho_2", NUMBER_CELL),
            "median_l2": ("median l2, best attack", NUMBER_CELL),
            "growth": ("times the reference's", RATIO_CELL),
            "growth_deepfool": ("by DeepFool alone", RATIO_CELL),
            "fgs_0.2": ("FGS at 0.2 eps_ref", PERCENT_CELL),
            "fgs_0.5": ("0.5", PERCENT_CELL),
            "fgs_1": ("1.0", PERCENT_CELL),
        },
    ),
    "table2": TableView(
        {**NETWORK_COLUMNS, "attack": "attack", "norm": "norm", "eps": "accuracy within"},
        {"median": ("median distance", NUMBER_CELL), "accuracy": ("accuracy", PERCENT_CELL)},
        across="label",
    ),
    "epochs": TableView(
        {**NETWORK_COLUMNS, "epoch": "epoch"},
        {"accuracy": ("accuracy", PERCENT_CELL), "rho_2": ("rho_2", NUMBER_CELL)},
        across="label",
    ),
    "ablation": TableView(
        {**NETWORK_COLUMNS, "changed": "changed", "factor": "factor"},
        {
            "c": ("c", NUMBER_CELL),
            "d": ("d", NUMBER_CELL),
            "lam": ("lambda", NUMBER_CELL),
            "accuracy": ("accuracy", PERCENT_CELL),
            "rho_2": ("rho_2", NUMBER_CELL),
        },
    ),
    "layers": TableView(
        {**NETWORK_COLUMNS, "layer": "layer"},
        {
            "accuracy": ("accuracy", PERCENT_CELL),
            "before": ("rho_2 before", NUMBER_CELL),
            "rho_2": ("rho_2", NUMBER_CELL),
        },
    ),
    "cost": TableView(
        METHOD_COLUMNS,
        {
            "step_ratio": ("step / plain step", RATIO_CELL),
            "seconds_per_epoch": ("seconds an epoch", NUMBER_CELL),
            "mb_beyond_plain": ("MB beyond plain training", WHOLE_CELL),
            "iterations_first": ("search steps in training, first epoch", RATIO_CELL),
            "iterations_last": ("last epoch", RATIO_CELL),
            "unfinished_first": (
                "searches not across the boundary, first epoch",
                PERCENT_CELL,
            ),
            "unfinished_last": ("last epoch", PERCENT_CELL),
            "iterations_before": ("DeepFool's iterations, held out, before", RATIO_CELL),
            "iterations_after": ("after", RATIO_CELL),
        },
    ),
}


def format_table(
    table: str, rows: Sequence[Mapping[str, Any]]
) -> tuple[list[str], list[list[str]]]:
    """Return the headings of the table named `table`, and its lines, which are lists of cells."""
    view = VIEWS[table]
    groups: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
    for row in rows:
        groups.setdefault(tuple(row.get(key) for key in view.by), []).append(row)
    if view.across is None:
        names = [name for name, _ in view.columns.values()]
        cells = [_format_figures(view, group) for group in groups.values()]
    else:
        names = list(dict.fromkeys(row[view.across] for row in rows))
        cells = [
            [
                ", ".join(filter(None, _format_figures(view, _select(group, view.across, name))))
                for name in names
            ]
            for group in groups.values()
        ]
    keys = [[_format_key(value) for value in key] for key in groups]
    return [*view.by.values(), *names], [[*a, *b] for a, b in zip(keys, cells, strict=True)]


def _select(rows: Sequence[Mapping[str, Any]], key: str, value: Any) -> list[Mapping[str, Any]]:
    """Return the rows in which `row[key]` is `value`."""
    return [row for row in rows if row[key] == value]


def _format_figures(view: TableView, rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the text of each figure, averaged over `rows`, which differ only in seed."""
    return [form([row.get(key) for row in rows]) for key, (_, form) in view.columns.items()]


def _format_key(value: Any) -> str:
    """Format a value under a key of `TableView.by`, such as an epoch or a name."""
    if value is None:
        return ""
    return f"{value:g}" if isinstance(value, float) else str(value)


def format_markdown(table: str, rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the table named `table` in Markdown."""
    head, body = format_table(table, rows)
    lines = [head, ["---"] * len(head), *body]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
