"""Make the tables of an evaluation's page.

They show the main figures, the quantiles of the distance, the attacks' settings, and weak classes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, TypeVar

import numpy as np

from deepdefense.app.pages.evaluation_headline import explain_withholding, format_radius
from deepdefense.app.pages.wording import (
    MISSING,
    compute_points_change,
    compute_ratio,
    format_count,
    format_factor,
    format_interval,
    format_number,
    format_percent,
    format_points_change,
    format_ratio,
    format_setting,
    format_signed_points,
    name_norm,
)
from deepdefense.evaluation.provenance import to_json
from deepdefense.evaluation.report import AttackLine, ReferenceFigures, Report, Weakness
from deepdefense.evaluation.statistics import robust_accuracy

__all__ = [
    "MAX_CONFUSION_CLASSES",
    "ClassLine",
    "TableCell",
    "TableLine",
    "describe_attack_settings",
    "tabulate_classes",
    "tabulate_main_figures",
    "tabulate_quantiles",
]

FigureT = TypeVar("FigureT")
Figures = Report | ReferenceFigures  # the tables read only fields that both have

WITHHELD = "withheld"
NONE_FOUND = "none found"
MAX_CONFUSION_CLASSES = 20  # with more classes, the confusion table is too large to read
MAX_LISTED_CLASSES = 15  # the number of classes listed instead of a confusion table

# The strongest shade of a cell of the confusion table, in percent, at which the number in the cell
# stays readable.
STRONGEST_SHADE = 45


class TableCell(NamedTuple):
    """The text of a table cell: a figure, and its 95 % confidence interval ("" if unknown)."""

    value: str
    interval: str = ""


class TableLine(NamedTuple):
    """One line of a table, which shows one figure.

    If the report has an undefended reference network, `cells` hold its figure, the figure of the
    evaluated network, and the change. Otherwise the only cell holds the figure of the evaluated
    network.
    """

    label: str
    cells: tuple[TableCell, ...]


class ClassLine(NamedTuple):
    """One line of the table of classes, on the examples whose label is the class `name`.

    With at most MAX_CONFUSION_CLASSES classes, `entries` is the class's row of the confusion table.
    Otherwise `neighbour` is the class predicted most often for the fooled examples.
    """

    name: str
    total: int  # the number of the class's correctly classified examples that are fooled
    median: float | None  # the median distance of the class's correctly classified examples
    # For each predicted class, the number of fooled examples and the shade of the cell in percent.
    entries: tuple[tuple[int, float], ...] = ()
    neighbour: str = MISSING
    share: float | None = None  # the fraction of `total` that is predicted as `neighbour`


class _LineMaker:
    """Makes the lines of the main table from one report; `tabulate_main_figures` uses it."""

    def __init__(self, report: Report) -> None:
        self._report = report
        self._intervals = report.intervals
        self._withheld = explain_withholding(report) is not None

    def get_pair(self, get: Callable[[Figures], FigureT]) -> tuple[FigureT | None, FigureT]:
        """Return the figure that `get` reads, for the reference network and for this network.

        The first value is None if the report has no reference network.
        """
        reference = self._report.reference
        return None if reference is None else get(reference), get(self._report)

    def make_cell(
        self, value: float | None, write: Callable[[float | None], str], name: str
    ) -> TableCell:
        """Make a cell of `value` and of `report.intervals[name]`; `write` formats both."""
        return TableCell(write(value), format_interval(self._intervals.get(name), write))

    def make_line(
        self, label: str, before: str, value: TableCell | str, change: TableCell | str = ""
    ) -> TableLine:
        """Make a line, without `before` and `change` if the report has no reference network."""
        after = value if isinstance(value, TableCell) else TableCell(value)
        if self._report.reference is None:
            return TableLine(label, (after,))
        last = change if isinstance(change, TableCell) else TableCell(change)
        return TableLine(label, (TableCell(before), after, last))

    def make_robustness_line(
        self, label: str, before: str, value: TableCell | str, change: TableCell | str
    ) -> TableLine:
        """Make a line of a robustness figure.

        If the page withholds these figures, "withheld" replaces `value` and `change`.
        """
        if self._withheld:
            value = change = WITHHELD
        return self.make_line(label, before, value, change)

    def make_count_line(self, label: str, get: Callable[[Figures], int]) -> TableLine:
        """Make a line of counts, with an empty cell for the change."""
        before, after = self.get_pair(get)
        old = MISSING if before is None else format_count(before)
        return self.make_line(label, old, format_count(after))


def tabulate_main_figures(report: Report) -> list[TableLine]:
    """Return the lines of the main table, one for each figure."""
    maker, n = _LineMaker(report), report.n
    success = maker.get_pair(lambda figures: figures.success)
    iterations = maker.get_pair(lambda figures: figures.iterations_mean)
    return [
        *_tabulate_headline(report, maker),
        *_tabulate_rho(maker),
        maker.make_line("Examples DeepFool fools", *(format_percent(x, n) for x in success)),
        maker.make_line("DeepFool iterations, mean", *map(format_number, iterations)),
        maker.make_count_line(
            "Misclassified without an attack", lambda figures: figures.distance.wrong
        ),
        maker.make_count_line(
            "Not fooled by any attack", lambda figures: figures.distance.censored
        ),
        maker.make_count_line("Held-out examples", lambda _: n),
    ]


def _tabulate_headline(report: Report, maker: _LineMaker) -> Iterator[TableLine]:
    """Yield lines of accuracy, the median distance and, if an eps is set, accuracy under attack."""
    headline, comparison, n = report.headline, report.comparison, report.n

    def share(value: float | None) -> str:
        return format_percent(value, n)

    def points_change(before: float | None, after: float | None) -> str:
        return format_points_change(compute_points_change(before, after, n), n)

    def signed_points(end: float) -> str:
        return format_signed_points(100 * end, n)

    before, after = maker.get_pair(lambda figures: figures.accuracy)
    interval = None if comparison is None else comparison.accuracy_interval
    yield maker.make_line(
        "Accuracy",
        share(before),
        maker.make_cell(after, share, "accuracy"),
        TableCell(points_change(before, after), format_interval(interval, signed_points)),
    )
    median_before, _ = maker.get_pair(lambda figures: figures.distance.median)
    ratio, interval = (
        (None, None) if comparison is None else (comparison.median_ratio, comparison.interval)
    )
    yield maker.make_robustness_line(
        f"Distance ({name_norm(report.threat.p)}), median",
        format_number(median_before),
        maker.make_cell(headline.distance_median, format_number, "distance_median"),
        TableCell(format_factor(ratio), format_interval(interval, format_ratio)),
    )
    if headline.eps is not None:
        minima, robust = report.reference_minima, headline.robust_accuracy
        before = None if minima is None else robust_accuracy(minima.distance, headline.eps)
        yield maker.make_robustness_line(
            f"Accuracy under attack within {format_radius(report)}",
            share(before),
            maker.make_cell(robust, share, "robust_accuracy"),
            points_change(before, robust),
        )


def _tabulate_rho(maker: _LineMaker) -> Iterator[TableLine]:
    """Yield lines of the mean and the median of rho_2."""
    before, after = maker.get_pair(lambda figures: figures.rho_2)
    yield maker.make_robustness_line(
        "rho_2 by DeepFool, mean",
        format_number(before),
        maker.make_cell(after, format_number, "rho_2"),
        format_factor(compute_ratio(before, after)),
    )
    before, after = maker.get_pair(lambda figures: figures.rho_2_median)
    yield maker.make_robustness_line(
        "rho_2 by DeepFool, median",
        format_number(before),
        format_number(after),
        format_factor(compute_ratio(before, after)),
    )


def tabulate_quantiles(report: Report) -> list[TableLine]:
    """Return a line for each quantile of the distance.

    Each line states a share of the examples, such as 95 %, and the distance that this share of them
    reach or exceed.
    """
    reference = report.reference
    quantiles = report.distance.quantiles
    quantiles_before = {} if reference is None else reference.distance.quantiles
    lines = []
    for level, after in sorted(quantiles.items(), key=lambda item: float(item[0])):
        before = quantiles_before.get(level)
        old, new = (
            TableCell(NONE_FOUND if x is None else format_number(x)) for x in (before, after)
        )
        change = TableCell(format_factor(compute_ratio(before, after)))
        cells = (new,) if reference is None else (old, new, change)
        lines.append(TableLine(f"{100 - float(level):g} % of examples", cells))
    return lines


def describe_attack_settings(attack: AttackLine) -> str:
    """Return the settings of an attack as text, such as "steps 50, overshoot 0.02"."""
    settings = to_json(attack.settings)
    return ", ".join(
        f"{name.replace('_', ' ')} {format_setting(value)}" for name, value in settings.items()
    )


def tabulate_classes(weakness: Weakness, names: Sequence[str]) -> list[ClassLine]:
    """Return the rows of the confusion table or, with too many classes, the weakest classes.

    The weakest classes are those with the smallest median distance.

    Args:
        weakness: the confusion table and the median distance of each class, from the report.
        names: the names of the classes; a class beyond the last name is named by its index.
    """
    counts = np.array(weakness.counts, dtype=np.int64)
    names = [names[i] if i < len(names) else str(i) for i in range(len(counts))]
    totals = counts.sum(1)
    shares = counts / np.maximum(totals, 1)[:, None]
    if len(counts) <= MAX_CONFUSION_CLASSES:
        shades = STRONGEST_SHADE * shares / max(float(shares.max(initial=0)), 1e-9)
        return [
            ClassLine(
                names[i],
                int(totals[i]),
                weakness.median[i],
                tuple(zip(counts[i].tolist(), shades[i].round(1).tolist(), strict=True)),
            )
            for i in range(len(counts))
        ]
    ranking = sorted((median, i) for i, median in enumerate(weakness.median) if median is not None)
    return [
        ClassLine(
            names[i],
            int(totals[i]),
            median,
            neighbour=names[int(counts[i].argmax())] if totals[i] else MISSING,
            share=float(shares[i].max()) if totals[i] else None,
        )
        for median, i in ranking[:MAX_LISTED_CLASSES]
    ]
