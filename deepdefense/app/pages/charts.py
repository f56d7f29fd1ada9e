"""The figures of the pages: curves and histograms, as inline SVG."""

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


WIDE_CHART = (4.3, 2.7)


HISTOGRAM_BINS = 40


LEAST_ACCURACY_SPAN = (
    2.0  # the accuracy axis spans this much at least, lest noise look like a trend
)


class HistogramSeries(NamedTuple):
    """What a histogram shows of one network."""

    name: str  # a key of LINES
    values: NumpyArray  # one for each example that has one
    total: int  # of how many examples the shares are
    median: float | None  # of all of them; None is not drawn


def draw_accuracy_curve(before: float | None, history: Sequence[float | None], alt: str) -> Markup:
    """Accuracy over the epochs, in percent; epoch 0 is the reference network."""
    with matplotlib.rc_context(MATPLOTLIB_STYLE):
        figure, axes = create_axes("Accuracy [%]")
        values = 100 * _fill_missing([before, *history])
        _draw_epochs(axes, values)
        known = values[np.isfinite(values)]
        if len(known):
            low, high = float(known.min()), float(known.max())
            slack = max(0.1 * (high - low), (LEAST_ACCURACY_SPAN - (high - low)) / 2)
            axes.set_ylim(max(low - slack, -1), min(high + slack, 100.3))
        return render_svg(figure, "accuracy", alt)


def draw_rho_curve(before: float | None, history: Sequence[float | None], alt: str) -> Markup:
    """Mean rho_2 over the epochs, from zero; epoch 0 is the reference network."""
    with matplotlib.rc_context(MATPLOTLIB_STYLE):
        figure, axes = create_axes("Mean ρ₂")
        values = _fill_missing([before, *history])
        _draw_epochs(axes, values)
        known = values[np.isfinite(values)]
        axes.set_ylim(0, 1.1 * float(known.max()) if len(known) and known.max() > 0 else 1)
        return render_svg(figure, "rho", alt)


def draw_loss_curves(
    cross_entropy: Sequence[float | None], penalty: Sequence[float | None], alt: str
) -> Markup:
    """The two parts of the training loss over the epochs, in one scale."""
    with matplotlib.rc_context(MATPLOTLIB_STYLE):
        figure, axes = create_axes("Training loss")
        parts = [_fill_missing(cross_entropy), _fill_missing(penalty)]
        epochs = np.arange(1, len(cross_entropy) + 1)
        marker = _choose_marker(len(epochs))
        axes.plot(epochs, parts[0], f"{marker}-", color=INK, label="cross-entropy")
        axes.plot(epochs, parts[1], f"{marker}--", color=WARM, label="penalty")
        axes.set_xlim(0.7, len(epochs) + 0.3)
        known = np.concatenate(parts)
        known = known[np.isfinite(known)]
        if len(known) and known.min() > 0 and known.max() > 30 * known.min():
            axes.set_yscale("log")
            axes.set_ylabel("Training loss (log scale)")
        else:
            axes.set_ylim(0, 1.1 * float(known.max()) if len(known) and known.max() > 0 else 1)
        add_legend(axes)
        return render_svg(figure, "loss", alt)


def draw_rho_histogram(before: NumpyArray, after: NumpyArray, alt: str) -> Markup:
    """The distribution of rho_2 before and after, with medians; the last bar holds the tail."""
    samples = [
        HistogramSeries(name, values, len(values), float(np.median(values)))
        for name, values in (("before", before), ("after", after))
        if len(values)
    ]
    return draw_histogram(samples, "ρ₂ of an example", alt)


def draw_histogram(samples: Sequence[HistogramSeries], label: str, alt: str) -> Markup:
    """How values are distributed, one network over the other; the last bar holds the tail."""
    with matplotlib.rc_context(MATPLOTLIB_STYLE):
        figure, axes = create_axes("Share of examples [%]", label, WIDE_CHART)
        top = float(np.percentile(np.concatenate([each.values for each in samples]), 99.5)) or 1.0
        edges = np.linspace(0, top, HISTOGRAM_BINS + 1)
        for name, values, total, median in samples:
            color, style = SERIES_STYLES[name]
            share = 100 * np.histogram(np.clip(values, 0, top), edges)[0] / max(total, 1)
            axes.stairs(share, edges, fill=True, color=color, alpha=0.25)
            drawn = axes.stairs(share, edges, color=color, linewidth=1.4)
            if median is None or not np.isfinite(median):
                drawn.set_label(name)
                continue
            label = f"{name}, median {median:.3g}"
            axes.axvline(min(median, top), color=color, linestyle=style, label=label)
        axes.set_xlim(0, top)
        add_legend(axes)
        return render_svg(figure, "distribution", alt)


def draw_security_curve(
    curves: Mapping[str, Mapping[str, Sequence[float | None]]],
    label: str,
    eps: float | None,
    alt: str,
) -> Markup:
    """Accuracy under attack over the size of the perturbation, in percent, each with its band."""
    with matplotlib.rc_context(MATPLOTLIB_STYLE):
        figure, axes = create_axes("Accuracy under attack [%]", label, WIDE_CHART)
        for name, curve in curves.items():
            color, style = SERIES_STYLES[name]
            size, middle, low, high = (
                _fill_missing(curve[key]) for key in ("eps", "robust_accuracy", "low", "high")
            )
            axes.fill_between(size, 100 * low, 100 * high, color=color, alpha=0.2, linewidth=0)
            axes.plot(size, 100 * middle, style, color=color, label=name)
        if eps is not None:
            axes.axvline(eps, color=MUTED, linestyle=":", linewidth=1.4, label=f"at {eps:.3g}")
        axes.set_xlim(0)
        axes.set_ylim(0, 101)
        add_legend(axes, columns=3)
        return render_svg(figure, "security", alt)


def _fill_missing(history: Sequence[float | None]) -> NumpyArray:
    return np.array([np.nan if value is None else value for value in history], dtype=float)


def _choose_marker(count: int) -> str:
    return "o" if count <= 30 else ""


def _draw_epochs(axes: Axes, values: NumpyArray) -> None:
    """A curve that starts at the reference network, whose level is drawn through."""
    epochs = np.arange(len(values))
    axes.plot(epochs, values, f"{_choose_marker(len(values))}-", color=AFTER, clip_on=False)
    axes.plot(0, values[0], "o", color=BEFORE, markersize=7, label="before", zorder=3)
    axes.axhline(values[0], color=BEFORE, linestyle="--", linewidth=1)
    axes.set_xlim(-0.04 * max(len(values) - 1, 1), max(len(values) - 1, 1))
    add_legend(axes)
