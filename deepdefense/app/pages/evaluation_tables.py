"""The tables of the evaluation's page: main figures, quantiles, classes, manifest."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from deepdefense.app.pages.evaluation_headline import (
    explain_withholding,
    format_interval,
    format_radius,
    name_norm,
)
from deepdefense.app.pages.wording import (
    MISSING,
    compute_points_change,
    compute_ratio,
    format_factor,
    format_number,
    format_percent,
    format_points_change,
    format_ratio,
    format_signed_points,
    format_value,
)

__all__ = [
    "MOST_MAPPED_CLASSES",
    "ClassLine",
    "TableCell",
    "TableLine",
    "format_count",
    "group_manifest",
    "tabulate_classes",
    "tabulate_main_figures",
    "tabulate_quantiles",
]

WITHHELD = "withheld"


NONE_FOUND = "none found"


MOST_MAPPED_CLASSES = 20  # classes: with more, the map of confusions is too large to read


WEAKEST_CLASSES = 15


STRONGEST_SHADE = (
    45  # percent: the map's strongest shade; figures on it stay readable, light and dark
)


class TableCell(NamedTuple):
    """A figure and its 95 % interval."""

    value: str
    interval: str = ""


class TableLine(NamedTuple):
    """One line of a table: of this network, or with a reference before, after and change."""

    label: str
    cells: tuple[TableCell, ...]


class ClassLine(NamedTuple):
    """How weak one class is: in the map all its entries, else its most frequent neighbor."""

    name: str
    total: int
    median: float | None
    entries: tuple[tuple[int, float], ...] = ()  # examples, and their shade in percent
    neighbor: str = MISSING
    share: float | None = None


def tabulate_main_figures(
    report: Mapping[str, Any], robust_before: float | None
) -> list[TableLine]:
    """The table of the main figures; `robust_before` is of the reference, at the same eps."""
    after, before, paired = report, report["reference"] or {}, report["comparison"] or {}
    spans, headline, n = report["intervals"], report["headline"], report["n"]
    held = explain_withholding(report) is not None

    def share(value: float | None) -> str:
        return format_percent(value, n)

    def moved(old: float | None, new: float | None) -> str:
        return format_points_change(compute_points_change(old, new, n), n)

    def line(
        label: str, value: TableCell, old: str = MISSING, change: TableCell | str = MISSING
    ) -> TableLine:
        moved = change if isinstance(change, TableCell) else TableCell(change)
        return TableLine(label, (TableCell(old), value, moved) if report["reference"] else (value,))

    def robustness(label: str, value: TableCell, old: str, change: TableCell | str) -> TableLine:
        if held:
            value = change = TableCell(WITHHELD)
        return line(label, value, old, change)

    def counts(label: str, key: str) -> TableLine:
        old = before.get("distance", {}).get(key)
        return line(label, TableCell(format_count(report["distance"][key])), format_count(old), "")

    size = name_norm(report["threat"]["p"])
    lines = [
        line(
            "Accuracy",
            TableCell(share(after["accuracy"]), format_interval(spans.get("accuracy"), share)),
            share(before.get("accuracy")),
            TableCell(
                moved(before.get("accuracy"), after["accuracy"]),
                format_interval(
                    paired.get("accuracy_interval"), lambda end: format_signed_points(100 * end, n)
                ),
            ),
        ),
        robustness(
            f"Distance ({size}), median",
            TableCell(
                format_number(headline["distance_median"]),
                format_interval(spans.get("distance_median"), format_number),
            ),
            format_number(before.get("distance", {}).get("median")),
            TableCell(
                format_factor(paired.get("median_ratio")),
                format_interval(paired.get("interval"), format_ratio),
            ),
        ),
    ]
    if headline["eps"] is not None:
        robust = headline["robust_accuracy"]
        lines.append(
            robustness(
                f"Accuracy under attack within {format_radius(report)}",
                TableCell(share(robust), format_interval(spans.get("robust_accuracy"), share)),
                share(robust_before),
                moved(robust_before, robust),
            )
        )
    lines += [
        robustness(
            "rho_2 by DeepFool, mean",
            TableCell(
                format_number(after["rho_2"]), format_interval(spans.get("rho_2"), format_number)
            ),
            format_number(before.get("rho_2")),
            format_factor(compute_ratio(before.get("rho_2"), after["rho_2"])),
        ),
        robustness(
            "rho_2 by DeepFool, median",
            TableCell(format_number(after["rho_2_median"])),
            format_number(before.get("rho_2_median")),
            format_factor(compute_ratio(before.get("rho_2_median"), after["rho_2_median"])),
        ),
        line(
            "Examples DeepFool fools",
            TableCell(share(after["success"])),
            share(before.get("success")),
            "",
        ),
        line(
            "DeepFool iterations, mean",
            TableCell(format_number(after["iterations_mean"])),
            format_number(before.get("iterations_mean")),
            "",
        ),
        counts("Misclassified without an attack", "wrong"),
        counts("Not fooled by any attack", "censored"),
        line("Held-out examples", TableCell(format_count(n)), format_count(n), ""),
    ]
    return lines


def tabulate_quantiles(report: Mapping[str, Any]) -> list[TableLine]:
    """The distance that all but the most fragile examples reach."""
    after, reference = report["distance"]["quantiles"], report["reference"]
    before = reference["distance"].get("quantiles", {}) if reference else {}
    lines = []
    for level, value in sorted(after.items(), key=lambda item: float(item[0])):
        old, new = (
            TableCell(NONE_FOUND if x is None else format_number(x))
            for x in (before.get(level), value)
        )
        change = TableCell(format_factor(compute_ratio(before.get(level), value)))
        cells = (old, new, change) if reference else (new,)
        lines.append(TableLine(f"{100 - float(level):g} % of examples", cells))
    return lines


def tabulate_classes(weakness: Mapping[str, Any], names: Sequence[str]) -> list[ClassLine]:
    """The lines of the map, or of the table of the weakest classes where there are many."""
    counts = np.array(weakness["counts"], dtype=np.int64)
    names = [names[i] if i < len(names) else str(i) for i in range(len(counts))]
    medians: Sequence[float | None] = weakness["median"]
    totals = counts.sum(1)
    shares = counts / np.maximum(totals, 1)[:, None]
    if len(counts) <= MOST_MAPPED_CLASSES:
        shades = STRONGEST_SHADE * shares / max(float(shares.max(initial=0)), 1e-9)
        return [
            ClassLine(
                names[i],
                int(totals[i]),
                medians[i],
                tuple(zip(counts[i].tolist(), shades[i].round(1).tolist(), strict=True)),
            )
            for i in range(len(counts))
        ]
    known = [(median, i) for i, median in enumerate(medians) if median is not None]
    return [
        ClassLine(
            names[i],
            int(totals[i]),
            median,
            neighbor=names[int(counts[i].argmax())] if totals[i] else MISSING,
            share=float(shares[i].max()) if totals[i] else None,
        )
        for median, i in sorted(known)[:WEAKEST_CLASSES]
    ]


def group_manifest(manifest: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    """The manifest as tables of one level: nested names are joined by dots, numbers are exact."""
    groups: dict[str, dict[str, str]] = {}
    for key, value in manifest.items():
        nested = isinstance(value, Mapping) and value
        group = groups.setdefault(key if nested else "Manifest", {})
        group.update(_flatten_manifest(value, "" if nested else key))
    return groups


def _flatten_manifest(value: Any, path: str) -> Iterator[tuple[str, str]]:
    """The entries below a place in the manifest, with their paths."""
    listed = isinstance(value, Sequence) and not isinstance(value, str)
    plain = listed and not any(isinstance(part, Mapping | list | tuple) for part in value)
    if plain:
        yield path, ", ".join(map(_format_exactly, value)) or "none"
    elif isinstance(value, Mapping) or listed:
        items = value.items() if isinstance(value, Mapping) else enumerate(value)
        for key, part in items:
            yield from _flatten_manifest(part, f"{path}.{key}" if path else str(key))
        if not value:
            yield path, "none"
    else:
        yield path, _format_exactly(value)


def _format_exactly(value: Any) -> str:
    """A value as setting() writes it, but with every digit."""
    written = format_value(value)
    if isinstance(value, float) and math.isfinite(value) and float(written) != value:
        return repr(value)
    return written


def format_count(value: int | None) -> str:
    """A count, as 10,000."""
    return MISSING if value is None else format_value(value, grouped=True)
