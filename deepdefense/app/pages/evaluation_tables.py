"""The tables of the evaluation's page: main figures, quantiles, classes, manifest."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from deepdefense.app.pages.evaluation_verdict import limit, norm, span, untrusted
from deepdefense.app.pages.wording import (
    MISSING,
    by_factor,
    by_points,
    number,
    percent,
    points_between,
    ratio_of,
    setting,
    signed,
    times,
)

__all__ = [
    "MAPPED",
    "Cell",
    "ClassLine",
    "Line",
    "class_lines",
    "count",
    "main_figures",
    "manifest_groups",
    "quantiles",
]

WITHHELD = "withheld"


NONE_FOUND = "none found"


MAPPED = 20  # classes: with more, the map of confusions is too large to read


WEAKEST_CLASSES = 15


TONED = 45  # percent: the map's strongest shade; figures on it stay readable, light and dark


class Cell(NamedTuple):
    """A figure and its 95 % interval."""

    value: str
    interval: str = ""


class Line(NamedTuple):
    """One line of a table: of this network, or with a reference before, after and change."""

    label: str
    cells: tuple[Cell, ...]


class ClassLine(NamedTuple):
    """How weak one class is: in the map all its entries, else its most frequent neighbor."""

    name: str
    total: int
    median: float | None
    entries: tuple[tuple[int, float], ...] = ()  # examples, and their shade in percent
    neighbor: str = MISSING
    share: float | None = None


def main_figures(report: Mapping[str, Any], robust_before: float | None) -> list[Line]:
    """The table of the main figures; `robust_before` is of the reference, at the same eps."""
    after, before, paired = report, report["reference"] or {}, report["comparison"] or {}
    spans, headline, n = report["intervals"], report["headline"], report["n"]
    held = untrusted(report) is not None

    def share(value: float | None) -> str:
        return percent(value, n)

    def moved(old: float | None, new: float | None) -> str:
        return by_points(points_between(old, new, n), n)

    def line(label: str, value: Cell, old: str = MISSING, change: Cell | str = MISSING) -> Line:
        moved = change if isinstance(change, Cell) else Cell(change)
        return Line(label, (Cell(old), value, moved) if report["reference"] else (value,))

    def robustness(label: str, value: Cell, old: str, change: Cell | str) -> Line:
        if held:
            value = change = Cell(WITHHELD)
        return line(label, value, old, change)

    def counts(label: str, key: str) -> Line:
        old = before.get("distance", {}).get(key)
        return line(label, Cell(count(report["distance"][key])), count(old), "")

    size = norm(report["threat"]["p"])
    lines = [
        line(
            "Accuracy",
            Cell(share(after["accuracy"]), span(spans.get("accuracy"), share)),
            share(before.get("accuracy")),
            Cell(
                moved(before.get("accuracy"), after["accuracy"]),
                span(paired.get("accuracy_interval"), lambda end: signed(100 * end, n)),
            ),
        ),
        robustness(
            f"Distance ({size}), median",
            Cell(number(headline["distance_median"]), span(spans.get("distance_median"), number)),
            number(before.get("distance", {}).get("median")),
            Cell(by_factor(paired.get("median_ratio")), span(paired.get("interval"), times)),
        ),
    ]
    if headline["eps"] is not None:
        robust = headline["robust_accuracy"]
        lines.append(
            robustness(
                f"Accuracy under attack within {limit(report)}",
                Cell(share(robust), span(spans.get("robust_accuracy"), share)),
                share(robust_before),
                moved(robust_before, robust),
            )
        )
    lines += [
        robustness(
            "rho_2 by DeepFool, mean",
            Cell(number(after["rho_2"]), span(spans.get("rho_2"), number)),
            number(before.get("rho_2")),
            by_factor(ratio_of(before.get("rho_2"), after["rho_2"])),
        ),
        robustness(
            "rho_2 by DeepFool, median",
            Cell(number(after["rho_2_median"])),
            number(before.get("rho_2_median")),
            by_factor(ratio_of(before.get("rho_2_median"), after["rho_2_median"])),
        ),
        line(
            "Examples DeepFool fools",
            Cell(share(after["success"])),
            share(before.get("success")),
            "",
        ),
        line(
            "DeepFool iterations, mean",
            Cell(number(after["iterations_mean"])),
            number(before.get("iterations_mean")),
            "",
        ),
        counts("Misclassified without an attack", "wrong"),
        counts("Not fooled by any attack", "censored"),
        line("Held-out examples", Cell(count(n)), count(n), ""),
    ]
    return lines


def quantiles(report: Mapping[str, Any]) -> list[Line]:
    """The distance that all but the most fragile examples reach."""
    after, reference = report["distance"]["quantiles"], report["reference"]
    before = reference["distance"].get("quantiles", {}) if reference else {}
    lines = []
    for level, value in sorted(after.items(), key=lambda item: float(item[0])):
        old, new = (
            Cell(NONE_FOUND if x is None else number(x)) for x in (before.get(level), value)
        )
        change = Cell(by_factor(ratio_of(before.get(level), value)))
        cells = (old, new, change) if reference else (new,)
        lines.append(Line(f"{100 - float(level):g} % of examples", cells))
    return lines


def class_lines(weakness: Mapping[str, Any], names: Sequence[str]) -> list[ClassLine]:
    """The lines of the map, or of the table of the weakest classes where there are many."""
    counts = np.array(weakness["counts"], dtype=np.int64)
    names = [names[i] if i < len(names) else str(i) for i in range(len(counts))]
    medians: Sequence[float | None] = weakness["median"]
    totals = counts.sum(1)
    shares = counts / np.maximum(totals, 1)[:, None]
    if len(counts) <= MAPPED:
        shades = TONED * shares / max(float(shares.max(initial=0)), 1e-9)
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


def manifest_groups(manifest: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    """The manifest as tables of one level: nested names are joined by dots, numbers are exact."""
    groups: dict[str, dict[str, str]] = {}
    for key, value in manifest.items():
        nested = isinstance(value, Mapping) and value
        group = groups.setdefault(key if nested else "Manifest", {})
        group.update(_leaves(value, "" if nested else key))
    return groups


def _leaves(value: Any, path: str) -> Iterator[tuple[str, str]]:
    """The entries below a place in the manifest, with their paths."""
    listed = isinstance(value, Sequence) and not isinstance(value, str)
    plain = listed and not any(isinstance(part, Mapping | list | tuple) for part in value)
    if plain:
        yield path, ", ".join(map(_exact, value)) or "none"
    elif isinstance(value, Mapping) or listed:
        items = value.items() if isinstance(value, Mapping) else enumerate(value)
        for key, part in items:
            yield from _leaves(part, f"{path}.{key}" if path else str(key))
        if not value:
            yield path, "none"
    else:
        yield path, _exact(value)


def _exact(value: Any) -> str:
    """A value as setting() writes it, but with every digit."""
    written = setting(value)
    if isinstance(value, float) and math.isfinite(value) and float(written) != value:
        return repr(value)
    return written


def count(value: int | None) -> str:
    """A count, as 10,000."""
    return MISSING if value is None else setting(value, grouped=True)
