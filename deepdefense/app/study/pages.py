"""A study on disk: its rows as JSON, its tables in Markdown, and one page with the pictures."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from deepdefense.app.runs import RunFolder

__all__ = ["SCHEMA", "VIEWS", "markdown", "write"]

SCHEMA = "deepdefense.reproduce/1"


Row = Mapping[str, Any]


Cell = Callable[[list[Any]], str]


def spread(form: Callable[[float], str]) -> Cell:
    """The mean over seeds, and their standard deviation where there are several."""

    def cell(values: list[Any]) -> str:
        known = [float(value) for value in values if value is not None]
        if not known:
            return ""
        mean = form(float(np.mean(known)))
        return mean if len(known) == 1 else f"{mean} ± {form(float(np.std(known, ddof=1)))}"

    return cell


PERCENT = spread(lambda value: f"{100 * value:.2f} %")


NUMBER = spread(lambda value: f"{value:.4g}")


TIMES = spread(lambda value: f"{value:.2f}")


SIZE = spread(lambda value: f"{value:.0f}")


class View(NamedTuple):
    """A table for reading: rows of equal values in `by` become one line, averaged over seeds.

    Its columns are the figures; or, `across` the values of another key, all figures of each.
    """

    by: Mapping[str, str]
    columns: Mapping[str, tuple[str, Cell]]
    across: str | None = None


NETWORK = {"data": "data", "network": "network"}


SUBJECT = {**NETWORK, "label": "method"}


VIEWS: Mapping[str, View] = {
    "table1": View(
        SUBJECT,
        {
            "accuracy": ("accuracy", PERCENT),
            "rho_2": ("rho_2", NUMBER),
            "median_l2": ("median l2, best attack", NUMBER),
            "growth": ("times the reference's", TIMES),
            "growth_deepfool": ("by DeepFool alone", TIMES),
            "fgs_0.2": ("FGS at 0.2 eps_ref", PERCENT),
            "fgs_0.5": ("0.5", PERCENT),
            "fgs_1": ("1.0", PERCENT),
        },
    ),
    "table2": View(
        {**NETWORK, "attack": "attack", "norm": "norm", "eps": "accuracy within"},
        {"median": ("median distance", NUMBER), "accuracy": ("accuracy", PERCENT)},
        across="label",
    ),
    "epochs": View(
        {**NETWORK, "epoch": "epoch"},
        {"accuracy": ("accuracy", PERCENT), "rho_2": ("rho_2", NUMBER)},
        across="label",
    ),
    "ablation": View(
        {**NETWORK, "changed": "changed", "factor": "times"},
        {
            "c": ("c", NUMBER),
            "d": ("d", NUMBER),
            "lam": ("lambda", NUMBER),
            "accuracy": ("accuracy", PERCENT),
            "rho_2": ("rho_2", NUMBER),
        },
    ),
    "layers": View(
        {**NETWORK, "layer": "layer"},
        {
            "accuracy": ("accuracy", PERCENT),
            "before": ("rho_2 before", NUMBER),
            "rho_2": ("rho_2", NUMBER),
        },
    ),
    "cost": View(
        SUBJECT,
        {
            "step_ratio": ("step / plain step", TIMES),
            "seconds_per_epoch": ("seconds an epoch", NUMBER),
            "mb_beyond_plain": ("MB beyond plain training", SIZE),
            "iterations_first": ("steps of a search in training, first epoch", TIMES),
            "iterations_last": ("last epoch", TIMES),
            "unfinished_first": ("not across then, first epoch", PERCENT),
            "unfinished_last": ("last epoch", PERCENT),
            "iterations_before": ("DeepFool's iterations, held out, before", TIMES),
            "iterations_after": ("after", TIMES),
        },
    ),
}


def lines(table: str, rows: Sequence[Row]) -> tuple[list[str], list[list[str]]]:
    """The head and the lines of a table for reading."""
    view = VIEWS[table]
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault(tuple(row.get(key) for key in view.by), []).append(row)
    if view.across is None:
        names = [name for name, _ in view.columns.values()]
        cells = [_figures(view, group) for group in groups.values()]
    else:
        names = list(dict.fromkeys(row[view.across] for row in rows))
        cells = [
            [
                ", ".join(filter(None, _figures(view, [r for r in group if r[view.across] == n])))
                for n in names
            ]
            for group in groups.values()
        ]
    known = [[_plain(value) for value in key] for key in groups]
    return [*view.by.values(), *names], [[*a, *b] for a, b in zip(known, cells, strict=True)]


def _figures(view: View, rows: Sequence[Row]) -> list[str]:
    return [cell([row.get(key) for row in rows]) for key, (_, cell) in view.columns.items()]


def _plain(value: Any) -> str:
    return "" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def markdown(table: str, rows: Sequence[Row]) -> str:
    """The table in Markdown."""
    head, body = lines(table, rows)
    written = [head, ["---"] * len(head), *body]
    return "".join(f"| {' | '.join(line)} |\n" for line in written)


def write(run: RunFolder, content: Mapping[str, Any]) -> None:
    """TABLE.json, TABLE.md and TABLE.html, the first of them last."""
    from deepdefense.app.pages import render_study

    table, rows = content["table"], content["rows"]
    head, body = lines(table, rows)
    run.write(f"{table}.html", render_study(content, head, body))
    run.write(f"{table}.md", f"`{content['command']}`\n\n{markdown(table, rows)}")
    run.write(f"{table}.json", json.dumps(content, indent=1, allow_nan=False) + "\n")
