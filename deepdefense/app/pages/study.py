"""Prepare the content of the page of one table of the study, and render it with study.html.j2."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle
from typing import Any, NamedTuple

import matplotlib
from markupsafe import Markup

from deepdefense.app.pages.drawing import (
    AFTER,
    BEFORE,
    INK,
    MATPLOTLIB_STYLE,
    MUTED,
    WARM,
    add_legend,
    create_axes,
    render_svg,
)
from deepdefense.app.pages.template import fill_template

__all__ = ["StudyPage", "render_study"]

TABLE_TITLES = {
    "table1": "Accuracy, robustness, and accuracy under the fast gradient sign",
    "table2": "Under stronger attacks",
    "epochs": "Over the epochs",
    "ablation": "The settings of Deep Defense varied",
    "layers": "The penalty on one layer at a time",
    "cost": "Cost",
}
# The headings of columns that hold text. The page aligns these columns to the left.
TEXT_COLUMNS = ("data", "network", "method", "attack", "norm", "changed", "layer")


class CurveAxes(NamedTuple):
    """The labels of a chart's axes, and the unit in which the y axis shows values."""

    x_label: str
    y_label: str
    unit: float = 1.0  # y values are multiplied by this; 100 turns fractions into percent


CURVE_AXES = {
    "fgs": CurveAxes("Length of the FGS step", "Accuracy under FGS [%]", 100.0),
    "accuracy": CurveAxes("Epoch", "Accuracy [%]", 100.0),
    "rho_2": CurveAxes("Epoch", "Mean ρ₂"),
    "iterations": CurveAxes("Epoch", "Search steps in training"),
    "unfinished": CurveAxes("Epoch", "Searches not across the boundary [%]", 100.0),
}
METHOD_COLORS, METHOD_DASHES = (AFTER, WARM, INK, MUTED), ("-", "--", ":")


@dataclass(frozen=True)
class StudyPage:
    """The content of the page of one table. Its values equal those in the table's JSON file."""

    table: str
    command: str
    headings: Sequence[str]
    lines: Sequence[Sequence[str]]
    # {experiment: {chart: {method: {axis: coordinates of the curve}}}}, where `chart` is a key of
    # CURVE_AXES and `axis` names what is on the axis, such as "epoch" or "accuracy".
    curves: Mapping[str, Mapping[str, Mapping[str, Mapping[str, Any]]]]
    settings: Mapping[str, Any]
    environment: Mapping[str, Any]
    data: Mapping[str, Mapping[str, Any]]  # the keys are names of experiments


def render_study(page: StudyPage) -> str:
    """Return the page as one HTML file with its charts; equal input gives equal bytes."""
    return fill_template(
        "study.html.j2",
        page=page,
        title=TABLE_TITLES[page.table],
        text_columns=sum(name in TEXT_COLUMNS for name in page.headings),
        figures=[
            (experiment, _draw_methods(f"{experiment}-{name}", CURVE_AXES[name], methods))
            for experiment, charts in page.curves.items()
            for name, methods in charts.items()
            if methods
        ],
    )


def _draw_methods(
    identity: str, labels: CurveAxes, curves: Mapping[str, Mapping[str, Any]]
) -> Markup:
    """Draw one curve for each method, each in its own colour and dash pattern.

    `identity` must be unique on the page. The keys of `curves` are the methods.
    """
    with matplotlib.rc_context(MATPLOTLIB_STYLE):
        figure, axes = create_axes(labels.y_label, labels.x_label, (4.8, 3.4))
        styles = cycle((color, dash) for dash in METHOD_DASHES for color in METHOD_COLORS)
        for method, curve in curves.items():
            color, dash = (BEFORE, "-") if method == "reference" else next(styles)
            (key,) = set(curve) - {"eps", "epoch"}
            x, y = curve.get("eps", curve.get("epoch")), [labels.unit * v for v in curve[key]]
            axes.plot(x, y, dash, color=color, label=method)
        add_legend(axes, columns=3)
        alt = f"{labels.y_label} of {', '.join(curves)}, over: {labels.x_label}."
        return render_svg(figure, identity, alt)
