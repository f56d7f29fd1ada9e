"""What the pictures of the pages are made of: axes and inline SVG, examples as PNG data URIs."""

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


# Drawn in these colors, then handed to the page's style sheet, which knows light, dark and print.
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


SMALL_IMAGE = 96  # pixels: smaller images are shown with sharp pixels, enlarged


def create_axes(
    y: str, x: str = "Epoch", size: tuple[float, float] = (3.5, 2.7)
) -> tuple[Figure, Axes]:
    """A figure and its axes; epochs are counted in whole numbers."""
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots()
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    whole = x == "Epoch"
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=whole, min_n_ticks=1 if whole else 2))
    axes.yaxis.set_major_locator(MaxNLocator(nbins=5))
    return figure, axes


def add_legend(axes: Axes, columns: int = 2) -> None:
    """The legend, above the axes."""
    axes.legend(loc="lower left", bbox_to_anchor=(-0.02, 1.0), ncols=columns, borderaxespad=0)


def render_svg(figure: Figure, name: str, alt: str) -> Markup:
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
    for drawn, meant in CSS_COLORS.items():
        body = body.replace(drawn, meant)
    head = f'<svg viewBox="{box[1]}" role="img" aria-label="{escape(alt)}">'
    return Markup(head + body)


def encode_image(image: NumpyArray) -> str:
    """A data URI of an image [h w c], c = 1 or 3, in display range 0..1; the rest is clipped."""
    shown = np.clip(np.nan_to_num(image), 0, 1)
    return _encode_png(np.broadcast_to(shown, (*shown.shape[:2], 3)))


def encode_perturbation(delta: NumpyArray, factor: float) -> str:
    """A data URI of a signed perturbation [h w c]: 0 is white (c = 1) or mid-gray (c = 3).

    One channel: red adds, blue takes away.
    """
    shown = np.clip(0.5 + factor * np.nan_to_num(delta), 0, 1)
    if shown.shape[-1] == 1:
        shown = colormaps["RdBu_r"](shown[..., 0])[..., :3]
    return _encode_png(shown)


def compute_amplification(*deltas: NumpyArray) -> float:
    """The factor by which these perturbations [h w c] together use the whole display range."""
    largest = max(float(np.abs(np.nan_to_num(delta)).max(initial=0)) for delta in deltas)
    return 0.5 / largest if largest > 0 else 1.0


def is_small(image: NumpyArray) -> bool:
    """Whether an image [h w c] is to be shown with sharp pixels, enlarged."""
    return bool(max(image.shape[:2]) <= SMALL_IMAGE)


def _encode_png(image: NumpyArray) -> str:
    file = io.BytesIO()
    nothing: dict[str, Any] = {"Software": None}
    imsave(file, np.round(255 * image).astype(np.uint8), format="png", metadata=nothing)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
