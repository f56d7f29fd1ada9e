"""The page of a study: its table, and its curves by method."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import Any

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

__all__ = ["render_study"]

TABLE_TITLES = {
    "table1": "Accuracy, robustness, and accuracy under the fast gradient sign",
    "table2": "Under stronger attacks",
    "epochs": "Over the epochs",
    "ablation": "The settings of Deep Defense varied",
    "layers": "The penalty on one layer at a time",
    "cost": "What it costs",
}


CURVE_AXES = {
    "fgs": ("Length of the FGS step", "Accuracy under FGS [%]", 100.0),
    "accuracy": ("Epoch", "Accuracy [%]", 100.0),
    "rho_2": ("Epoch", "Mean ρ₂", 1.0),
    "iterations": ("Epoch", "Steps of a search in training", 1.0),
    "unfinished": ("Epoch", "Not across after them [%]", 100.0),
}


METHOD_COLORS, METHOD_DASHES = (AFTER, WARM, INK, MUTED), ("-", "--", ":")


def render_study(
    content: Mapping[str, Any], head: Sequence[str], body: Sequence[Sequence[str]]
) -> str:
    """The page of one table: the content of its JSON file, and the table for reading."""
    return fill_template(
        "study.html.j2",
        title=TABLE_TITLES[content["table"]],
        content=content,
        head=head,
        body=body,
        text=sum(
            name in ("data", "network", "method", "attack", "norm", "changed", "layer")
            for name in head
        ),
        figures=[
            (subject, _draw_method_curves(f"{subject}-{name}", name, curves))
            for subject, drawn in content["curves"].items()
            for name, curves in drawn.items()
            if curves
        ],
    )


def _draw_method_curves(
    identity: str, name: str, curves: Mapping[str, Mapping[str, Any]]
) -> Markup:
    """One curve for each method, which differ by color and dashes."""
    along, upward, unit = CURVE_AXES[name]
    with matplotlib.rc_context(MATPLOTLIB_STYLE):
        figure, axes = create_axes(upward, along, (4.8, 3.4))
        looks = cycle((color, dash) for dash in METHOD_DASHES for color in METHOD_COLORS)
        for method, curve in curves.items():
            color, dash = (BEFORE, "-") if method == "reference" else next(looks)
            (key,) = set(curve) - {"eps", "epoch"}
            x, y = curve.get("eps", curve.get("epoch")), [unit * v for v in curve[key]]
            axes.plot(x, y, dash, color=color, label=method)
        add_legend(axes, columns=3)
        return render_svg(figure, identity, f"{upward} of {', '.join(curves)}, over: {along}.")
