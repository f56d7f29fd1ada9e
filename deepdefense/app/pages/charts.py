"""Draw the curves and histograms of the pages as inline SVG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import matplotlib
import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes

from deepdefense.app.pages.drawing import (
    AFTER,
    BEFORE,
    INK,
    MATPLOTLIB_STYLE,
    MUTED,
    WARM,
    NumpyArray,
    add_legend,
    create_axes,
    render_svg,
)
from deepdefense.evaluation.statistics import Curve

__all__ = [
    "HistogramSeries",
    "draw_accuracy_curve",
    "draw_histogram",
    "draw_loss_curves",
    "draw_rho_curve",
    "draw_rho_histogram",
    "draw_security_curve",
]

SERIES_STYLES = {"before": (BEFORE, "--"), "after": (AFTER, "-"), "this network": (AFTER, "-")}
WIDE_CHART = (4.3, 2.7)  # width and height in inches
HISTOGRAM_BINS = 40

# The smallest range of the accuracy axis, in percentage points, so that noise does not look like a
# trend.
LEAST_ACCURACY_SPAN = 2.0


class HistogramSeries(NamedTuple):
    """The values of one network, which `draw_histogram` draws as one histogram of a chart."""

    name: str  # a key of SERIES_STYLES
    values: NumpyArray  # [m], one for each example that has a value
    total: int  # the number of all examples; the bars show shares of it
    median: float | None  # of all `total` examples, drawn as a line; None: no line


def draw_accuracy_curve(
    before: float, history: Sequence[float], alt: str, x_label: str = "Epoch"
) -> Markup:
    """Draw accuracy in percent over the epochs; epoch 0 is the undefended network."""
    with matplotlib.rc_context(MATPLOTLIB_STYLE):
        figure, axes = create_axes("Accuracy [%]", x_label)
        values = 100 * _fill_missing([before, *history])
        _draw_from_reference(axes, values)
        finite = values[np.isfinite(values)]
        if len(finite):
            low, high = float(finite.min()), float(finite.max())
            slack = max(0.1 * (high - low), (LEAST_ACCURACY_SPAN - (high - low)) / 2)
            axes.set_ylim(max(low - slack, -1), min(high + slack, 100.3))
        return render_svg(figure, "accuracy", alt)


def draw_rho_curve(
    before: float, history: Sequence[float | None], alt: str, x_label: str = "Epoch"
) -> Markup:
    """Draw mean rho_2 over the epochs, on an axis from 0; epoch 0 is the undefended network."""
    with matplotlib.rc_context(MATPLOTLIB_STYLE):
        figure, axes = create_axes("Mean ρ₂", x_label)
        values = _fill_missing([before, *history])
        _draw_from_reference(axes, values)
        axes.set_ylim(0, _find_top(values))
        return render_svg(figure, "rho", alt)


def draw_loss_curves(
    cross_entropy: Sequence[float], penalty: Sequence[float], alt: str, x_label: str = "Epoch"
) -> Markup:
    """Draw cross-entropy and penalty over the epochs in one chart.

    The vertical axis is logarithmic if the values are positive and span more than a factor of 30.
    """
    with matplotlib.rc_context(MATPLOTLIB_STYLE):
        figure, axes = create_axes("Training loss", x_label)
        parts = [_fill_missing(cross_entropy), _fill_missing(penalty)]
        epochs = np.arange(1, len(cross_entropy) + 1)
        marker = _choose_marker(len(epochs))
        axes.plot(epochs, parts[0], f"{marker}-", color=INK, label="cross-entropy")
        axes.plot(epochs, parts[1], f"{marker}--", color=WARM, label="penalty")
        axes.set_xlim(0.7, len(epochs) + 0.3)
        values = np.concatenate(parts)
        finite = values[np.isfinite(values)]
        if len(finite) and finite.min() > 0 and finite.max() > 30 * finite.min():
            axes.set_yscale("log")
            axes.set_ylabel("Training loss (log scale)")
        else:
            axes.set_ylim(0, _find_top(values))
        add_legend(axes)
        return render_svg(figure, "loss", alt)


def draw_rho_histogram(before: NumpyArray, after: NumpyArray, alt: str) -> Markup:
    """Draw histograms of rho_2 before and after hardening, with their medians."""
    series = [
        HistogramSeries(name, values, len(values), float(np.median(values)))
        for name, values in (("before", before), ("after", after))
        if len(values)
    ]
    return draw_histogram(series, "ρ₂ of an example", alt)


def draw_histogram(series: Sequence[HistogramSeries], x_label: str, alt: str) -> Markup:
    """Draw one histogram for each series, all on the same axes.

    The horizontal axis ends at the 99.5th percentile of all values. The last bar also counts the
    values beyond it.
    """
    with matplotlib.rc_context(MATPLOTLIB_STYLE):
        figure, axes = create_axes("Share of examples [%]", x_label, WIDE_CHART)
        top = float(np.percentile(np.concatenate([each.values for each in series]), 99.5)) or 1.0
        edges = np.linspace(0, top, HISTOGRAM_BINS + 1)
        for name, values, total, median in series:
            color, style = SERIES_STYLES[name]
            shares = 100 * np.histogram(np.clip(values, 0, top), edges)[0] / max(total, 1)
            axes.stairs(shares, edges, fill=True, color=color, alpha=0.25)
            outline = axes.stairs(shares, edges, color=color, linewidth=1.4)
            if median is None or not np.isfinite(median):
                outline.set_label(name)
                continue
            label = f"{name}, median {median:.3g}"
            axes.axvline(min(median, top), color=color, linestyle=style, label=label)
        axes.set_xlim(0, top)
        add_legend(axes)
        return render_svg(figure, "distribution", alt)


def draw_security_curve(
    curves: Mapping[str, Curve], x_label: str, eps: float | None, alt: str
) -> Markup:
    """Draw accuracy under attack, with its 95 % confidence band, over the size of the perturbation.

    The keys of `curves` are keys of SERIES_STYLES. A dotted vertical line marks the perturbation
    budget `eps`, unless it is None.
    """
    with matplotlib.rc_context(MATPLOTLIB_STYLE):
        figure, axes = create_axes("Accuracy under attack [%]", x_label, WIDE_CHART)
        for name, curve in curves.items():
            color, style = SERIES_STYLES[name]
            sizes, accuracy, low, high = map(
                np.asarray, (curve.eps, curve.robust_accuracy, curve.low, curve.high)
            )
            axes.fill_between(sizes, 100 * low, 100 * high, color=color, alpha=0.2, linewidth=0)
            axes.plot(sizes, 100 * accuracy, style, color=color, label=name)
        if eps is not None:
            axes.axvline(eps, color=MUTED, linestyle=":", linewidth=1.4, label=f"at {eps:.3g}")
        axes.set_xlim(0)
        axes.set_ylim(0, 101)
        add_legend(axes, columns=3)
        return render_svg(figure, "security", alt)


def _fill_missing(values: Sequence[float | None]) -> NumpyArray:
    """Return the values as an array in which None becomes NaN."""
    return np.array([np.nan if value is None else value for value in values], dtype=float)


def _find_top(values: NumpyArray) -> float:
    """Return an upper end for an axis from 0 that shows `values`; 1 if no value is positive."""
    finite = values[np.isfinite(values)]
    return 1.1 * float(finite.max()) if len(finite) and finite.max() > 0 else 1


def _choose_marker(count: int) -> str:
    """Return matplotlib's marker for a curve of `count` points; "" (no marker) above 30 points."""
    return "o" if count <= 30 else ""


def _draw_from_reference(axes: Axes, values: NumpyArray) -> None:
    """Draw a curve over the epochs, and mark its value at epoch 0, before hardening."""
    epochs = np.arange(len(values))
    axes.plot(epochs, values, f"{_choose_marker(len(values))}-", color=AFTER, clip_on=False)
    axes.plot(0, values[0], "o", color=BEFORE, markersize=7, label="before", zorder=3)
    axes.axhline(values[0], color=BEFORE, linestyle="--", linewidth=1)
    axes.set_xlim(-0.04 * max(len(values) - 1, 1), max(len(values) - 1, 1))
    add_legend(axes)
