"""Create the axes of charts, render charts as inline SVG, and encode images as PNG."""

from __future__ import annotations

import base64
import io
import re
from typing import Any

import numpy as np
import numpy.typing as npt
from markupsafe import Markup, escape
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import imsave
from matplotlib.ticker import MaxNLocator

__all__ = [
    "AFTER",
    "BEFORE",
    "INK",
    "MATPLOTLIB_STYLE",
    "MUTED",
    "WARM",
    "NumpyArray",
    "add_legend",
    "compute_amplification",
    "create_axes",
    "encode_image",
    "encode_perturbation",
    "is_small",
    "render_svg",
]

NumpyArray = npt.NDArray[Any]

# `render_svg` replaces these placeholder colours by variables of the style sheet, because a colour
# must differ between light and dark screens.
INK, MUTED, RULE, BEFORE, AFTER, WARM = (f"#0{i}0{i}0{i}" for i in range(1, 7))
CSS_COLORS = {
    INK: "var(--ink)",
    MUTED: "var(--muted)",
    RULE: "var(--rule)",
    BEFORE: "var(--before)",
    AFTER: "var(--after)",
    WARM: "var(--warm)",
}
MATPLOTLIB_STYLE: Any = {
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
SMALL_IMAGE = 96  # largest height and width in pixels of an image that counts as small


def create_axes(
    y_label: str, x_label: str = "Epoch", size: tuple[float, float] = (3.5, 2.7)
) -> tuple[Figure, Axes]:
    """Create a figure and its axes. The x axis has whole-numbered ticks if it shows epochs."""
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots()
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    whole = x_label in ("Epoch", "Period")
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=whole, min_n_ticks=1 if whole else 2))
    axes.yaxis.set_major_locator(MaxNLocator(nbins=5))
    return figure, axes


def add_legend(axes: Axes, columns: int = 2) -> None:
    """Add a legend above the axes, with at most `columns` entries in a row."""
    axes.legend(loc="lower left", bbox_to_anchor=(-0.02, 1.0), ncols=columns, borderaxespad=0)


def render_svg(figure: Figure, name: str, alt: str) -> Markup:
    """Return the figure as one <svg> element that links to no other file.

    Equal figures give equal bytes. Every id in the element starts with `name`, so that it is unique
    on the page. `alt` is the text for screen readers.
    """
    file = io.StringIO()
    metadata: dict[str, Any] = {"Date": None, "Creator": None, "Format": None, "Type": None}
    figure.savefig(file, format="svg", metadata=metadata)
    text = file.getvalue()
    box = re.search(r'viewBox="([^"]*)"', text)
    assert box is not None
    body = text[text.index(">", text.index("<svg")) + 1 :]
    # A <style> element inside an SVG would apply to the whole page, so remove it.
    body = re.sub(r"<defs>\s*<style.*?</defs>", "", body, flags=re.DOTALL)
    body = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{name}-", body)
    for placeholder, variable in CSS_COLORS.items():
        body = body.replace(placeholder, variable)
    head = f'<svg viewBox="{box[1]}" role="img" aria-label="{escape(alt)}">'
    return Markup(head + body)


def encode_image(image: NumpyArray) -> str:
    """Return an image as a data URI of a PNG file.

    The image is [h w c] with c = 1 or 3. Values are clipped to the display range 0..1.
    """
    shown = np.clip(np.nan_to_num(image), 0, 1)
    return _encode_png(np.broadcast_to(shown, (*shown.shape[:2], 3)))


def encode_perturbation(delta: NumpyArray, factor: float) -> str:
    """Return a perturbation [h w c], multiplied by `factor`, as a data URI of a PNG file.

    With one channel, positive entries are red, negative entries are blue, and 0 is white. With
    three channels, 0.5 is added to every channel, so 0 is mid-grey.
    """
    shown = np.clip(0.5 + factor * np.nan_to_num(delta), 0, 1)
    if shown.shape[-1] == 1:
        shown = colormaps["RdBu_r"](shown[..., 0])[..., :3]
    return _encode_png(shown)


def compute_amplification(*deltas: NumpyArray) -> float:
    """Return the factor that scales the largest |entry| of all the perturbations [h w c] to 0.5."""
    largest = max(float(np.abs(np.nan_to_num(delta)).max(initial=0)) for delta in deltas)
    return 0.5 / largest if largest > 0 else 1.0


def is_small(image: NumpyArray) -> bool:
    """Return whether an image [h w c] is so small that the page should show its pixels sharply."""
    return bool(max(image.shape[:2]) <= SMALL_IMAGE)


def _encode_png(image: NumpyArray) -> str:
    """Return an image [h w 3] with values in 0..1 as a data URI of a PNG file."""
    file = io.BytesIO()
    metadata: dict[str, Any] = {"Software": None}
    imsave(file, np.round(255 * image).astype(np.uint8), format="png", metadata=metadata)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
