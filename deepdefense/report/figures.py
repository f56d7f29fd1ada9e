"""The pictures of the report: curves and histograms as inline SVG, examples as PNG data URIs."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
import numpy.typing as npt
from markupsafe import Markup, escape
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import imsave
from matplotlib.ticker import MaxNLocator

__all__ = ["accuracy_curve", "amplified", "histogram", "loss_curves", "picture", "rho_curve"]

Array = npt.NDArray[Any]

# Drawn in these colors, then handed to the page's style sheet, which knows light, dark and print.
INK, MUTED, RULE, BEFORE, AFTER, WARM = (f"#0{i}0{i}0{i}" for i in range(1, 7))
COLORS = {
    INK: "var(--ink)",
    MUTED: "var(--muted)",
    RULE: "var(--rule)",
    BEFORE: "var(--before)",
    AFTER: "var(--after)",
    WARM: "var(--warm)",
}
STYLE: Any = {
    "svg.hashsalt": "deepdefense",
    "svg.fonttype": "none",
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "text.color": INK,
    "axes.edgecolor": MUTED,
    "axes.facecolor": "none",
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.8,
    "axes.spines.left": False,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.formatter.useoffset": False,
    "figure.facecolor": "none",
    "grid.color": RULE,
    "grid.linewidth": 0.8,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "lines.linewidth": 1.8,
    "lines.markersize": 4.5,
    "xtick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.color": MUTED,
    "ytick.labelcolor": INK,
    "ytick.major.size": 0,
    "ytick.minor.size": 0,
}
BINS = 40
LEAST_POINTS = 2.0  # the accuracy axis spans this much at least, lest noise look like a trend


def accuracy_curve(before: float | None, history: Sequence[float | None], alt: str) -> Markup:
    """Accuracy over the epochs, in percent; epoch 0 is the reference network."""
    with matplotlib.rc_context(STYLE):
        figure, axes = _axes("Accuracy [%]")
        values = 100 * _values([before, *history])
        _trace(axes, values)
        known = values[np.isfinite(values)]
        if len(known):
            low, high = float(known.min()), float(known.max())
            slack = max(0.1 * (high - low), (LEAST_POINTS - (high - low)) / 2)
            axes.set_ylim(max(low - slack, -1), min(high + slack, 100.3))
        return _svg(figure, "accuracy", alt)


def rho_curve(before: float | None, history: Sequence[float | None], alt: str) -> Markup:
    """Mean rho_2 over the epochs, from zero; epoch 0 is the reference network."""
    with matplotlib.rc_context(STYLE):
        figure, axes = _axes("Mean ρ₂")
        values = _values([before, *history])
        _trace(axes, values)
        known = values[np.isfinite(values)]
        axes.set_ylim(0, 1.1 * float(known.max()) if len(known) and known.max() > 0 else 1)
        return _svg(figure, "rho", alt)


def loss_curves(
    cross_entropy: Sequence[float | None], penalty: Sequence[float | None], alt: str
) -> Markup:
    """The two parts of the training loss over the epochs, in one scale."""
    with matplotlib.rc_context(STYLE):
        figure, axes = _axes("Training loss")
        parts = [_values(cross_entropy), _values(penalty)]
        epochs = np.arange(1, len(cross_entropy) + 1)
        marker = _marker(len(epochs))
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
        _legend(axes)
        return _svg(figure, "loss", alt)


def histogram(before: Array, after: Array, alt: str) -> Markup:
    """The distribution of rho_2 before and after, with medians; the last bar holds the tail."""
    with matplotlib.rc_context(STYLE):
        figure, axes = _axes("Share of examples [%]", "ρ₂ of an example", (4.3, 2.7))
        top = float(np.percentile(np.concatenate([before, after]), 99.5)) or 1.0
        edges = np.linspace(0, top, BINS + 1)
        for values, color, name in ((before, BEFORE, "before"), (after, AFTER, "after")):
            if not len(values):
                continue
            share = 100 * np.histogram(np.clip(values, 0, top), edges)[0] / len(values)
            axes.stairs(share, edges, fill=True, color=color, alpha=0.25)
            axes.stairs(share, edges, color=color, linewidth=1.4)
            median = float(np.median(values))
            style = "--" if name == "before" else "-"
            label = f"{name}, median {median:.3g}"
            axes.axvline(min(median, top), color=color, linestyle=style, label=label)
        axes.set_xlim(0, top)
        _legend(axes)
        return _svg(figure, "distribution", alt)


def picture(image: Array) -> str:
    """A data URI of an image [h w c], c = 1 or 3, in display range 0..1; the rest is clipped."""
    shown = np.clip(np.nan_to_num(image), 0, 1)
    return _png(np.broadcast_to(shown, (*shown.shape[:2], 3)))


def amplified(delta: Array, factor: float) -> str:
    """A data URI of a signed perturbation [h w c]: 0 is white (c = 1) or mid-gray (c = 3).

    A factor of 0.5 / max |delta| uses the whole range. One channel: red adds, blue takes away.
    """
    shown = np.clip(0.5 + factor * np.nan_to_num(delta), 0, 1)
    if shown.shape[-1] == 1:
        shown = colormaps["RdBu_r"](shown[..., 0])[..., :3]
    return _png(shown)


def _png(image: Array) -> str:
    file = io.BytesIO()
    nothing: dict[str, Any] = {"Software": None}
    imsave(file, np.round(255 * image).astype(np.uint8), format="png", metadata=nothing)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def _values(history: Sequence[float | None]) -> Array:
    return np.array([np.nan if value is None else value for value in history], dtype=float)


def _axes(y: str, x: str = "Epoch", size: tuple[float, float] = (3.5, 2.7)) -> tuple[Figure, Axes]:
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots()
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    whole = x == "Epoch"
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=whole, min_n_ticks=1 if whole else 2))
    axes.yaxis.set_major_locator(MaxNLocator(nbins=5))
    return figure, axes


def _marker(count: int) -> str:
    return "o" if count <= 30 else ""


def _trace(axes: Axes, values: Array) -> None:
    """A curve that starts at the reference network, whose level is drawn through."""
    epochs = np.arange(len(values))
    axes.plot(epochs, values, f"{_marker(len(values))}-", color=AFTER, clip_on=False)
    axes.plot(0, values[0], "o", color=BEFORE, markersize=7, label="before", zorder=3)
    axes.axhline(values[0], color=BEFORE, linestyle="--", linewidth=1)
    axes.set_xlim(-0.04 * max(len(values) - 1, 1), max(len(values) - 1, 1))
    _legend(axes)


def _legend(axes: Axes) -> None:
    axes.legend(loc="lower left", bbox_to_anchor=(-0.02, 1.0), ncols=2, borderaxespad=0)


def _svg(figure: Figure, name: str, alt: str) -> Markup:
    """The figure as one <svg> element: no date, no foreign addresses, ids of its own."""
    file = io.StringIO()
    nothing: dict[str, Any] = {"Date": None, "Creator": None, "Format": None, "Type": None}
    figure.savefig(file, format="svg", metadata=nothing)
    text = file.getvalue()
    box = re.search(r'viewBox="([^"]*)"', text)
    assert box is not None
    body = text[text.index(">", text.index("<svg")) + 1 :]
    body = re.sub(r"<defs>\s*<style.*?</defs>", "", body, flags=re.DOTALL)  # it would be the page's
    body = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{name}-", body)
    for drawn, meant in COLORS.items():
        body = body.replace(drawn, meant)
    head = f'<svg viewBox="{box[1]}" role="img" aria-label="{escape(alt)}">'
    return Markup(head + body)
