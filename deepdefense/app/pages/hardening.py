"""The report as one HTML page: what stands on it; how it looks is in report.html.j2."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup

from deepdefense.app.pages import charts
from deepdefense.app.pages.drawing import (
    NumpyArray,
    compute_amplification,
    encode_image,
    encode_perturbation,
    is_small,
)
from deepdefense.app.pages.hardening_headline import (
    ComparisonRow,
    judge_hardening,
    list_measures,
    make_ratio_row,
    tabulate_comparison,
)
from deepdefense.app.pages.template import fill_template
from deepdefense.app.pages.wording import MISSING, format_number, format_percent

__all__ = ["Gallery", "render_hardening"]

EPOCH_CURVES = ("accuracy", "rho_2", "cross_entropy", "penalty")


RHO_PERCENTILES = (5, 10, 25, 50, 75, 90)  # percentiles


MEANINGS = {
    "lam": "weight of the penalty",
    "c": "steepness for right examples",
    "d": "steepness for wrong examples",
    "p": "order of the norm",
    "steps": "most DeepFool iterations in training",
    "candidates": "classes considered",
    "unfinished": "examples not across the boundary",
    "bounds": "the range of perturbed examples in training",
    "lr": "learning rate",
    "decay": "what the learning rate ends at, as a share",
    "anneal": "whether it falls along a cosine, not in one cut",
    "clip": "the longest gradient of a step",
    "flip": "whether images are mirrored at random",
    "shift": "pixels that images are moved by at most, at random",
    "channels_last": "whether images are [h w c], not [c h w], for flip and shift",
    "warmup": "epochs in which the learning rate rises",
    "max_accuracy_drop": "an epoch that costs more is taken back",
    "patience": "epochs without a larger rho_2 that end training",
    "validation": "share of training examples set aside, if either is given",
    "retries": "how often an epoch is tried again at half the learning rate",
}


@dataclass(frozen=True)
class Gallery:
    """Pictures of a few held-out examples, and what fools either network on them."""

    images: NumpyArray  # [n h w c], c = 1 or 3, in display range 0..1
    delta_before: (
        NumpyArray  # [n h w c], the reference network's perturbation, same units as images
    )
    delta_after: NumpyArray  # [n h w c], the hardened network's
    labels: tuple[str, ...]
    fooled_before: tuple[str, ...]  # the class the perturbed example is taken for
    fooled_after: tuple[str, ...]
    rho_before: NumpyArray  # [n]
    rho_after: NumpyArray  # [n]


def render_hardening(
    report: Mapping[str, Any],
    *,
    rho_before: NumpyArray,
    rho_after: NumpyArray,
    gallery: Gallery | None,
) -> str:
    """The report as one HTML file, pictures included; the same input gives the same bytes.

    Args:
        report: the content of report.json.
        rho_before: rho_2 of each held-out example, reference network; may be empty.
        rho_after: the same, hardened network.
        gallery: examples to show; None for data that are not images.
    """
    before, after = (values[np.isfinite(values)] for values in (rho_before, rho_after))
    return fill_template(
        "hardening.html.j2",
        report=report,
        verdict=judge_hardening(report),
        rows=tabulate_comparison(report),
        trained=list_measures(report).get("rho_p"),
        curves=_draw_epoch_curves(report),
        distribution=_draw_rho_histogram(before, after),
        quantiles=_tabulate_quantiles(before, after),
        examples=[] if gallery is None else _show_gallery(gallery),
        meanings=MEANINGS,
    )


def _draw_epoch_curves(report: Mapping[str, Any]) -> list[Markup]:
    """The figures over the epochs; none without an epoch, no loss where it was never finite."""
    history, before = report["history"], report["before"]
    if not history:
        return []
    accuracy, rho, entropy, penalty = (
        [epoch.get(key) for epoch in history] for key in EPOCH_CURVES
    )
    shares = [
        format_percent(value, before.get("n")) for value in (before.get("accuracy"), accuracy[-1])
    ]
    after = f"after epoch {len(history)}"
    began = report["sample"]["rho_2_before"]  # of the same examples as the epochs
    curves = [
        charts.draw_accuracy_curve(
            before.get("accuracy"),
            accuracy,
            f"Accuracy over the epochs: {shares[0]} before, {shares[1]} {after}.",
        ),
        charts.draw_rho_curve(
            began,
            rho,
            f"Mean rho_2 over the epochs: {_describe_ends([began, *rho])} {after}.",
        ),
    ]
    if any(format_number(value) != MISSING for value in entropy + penalty):
        alt = (
            f"Training loss, first to last epoch: cross-entropy {_describe_ends(entropy)}, penalty"
        )
        curves.append(
            charts.draw_loss_curves(entropy, penalty, f"{alt} {_describe_ends(penalty)}.")
        )
    return curves


def _describe_ends(values: Sequence[float | None]) -> str:
    return f"{format_number(values[0])} to {format_number(values[-1])}"


def _draw_rho_histogram(before: NumpyArray, after: NumpyArray) -> Markup | None:
    """The histograms; None where there is nothing to show."""
    if not len(before) and not len(after):
        return None
    medians = (format_number(_percentile(values, 50)) for values in (before, after))
    alt = "Histograms of rho_2, example by example: median {} before, {} after.".format(*medians)
    return charts.draw_rho_histogram(before, after, alt)


def _tabulate_quantiles(before: NumpyArray, after: NumpyArray) -> list[ComparisonRow]:
    """What rho_2 all but the most fragile examples reach: the mean hides those."""
    return [
        make_ratio_row(
            f"{100 - level} % of examples", _percentile(before, level), _percentile(after, level)
        )
        for level in RHO_PERCENTILES
    ]


def _percentile(values: NumpyArray, level: int) -> float:
    return float(np.percentile(values, level)) if len(values) else np.nan


def _show_gallery(gallery: Gallery) -> list[dict[str, Any]]:
    """What the template shows of each example; before and after share one amplification."""
    examples = []
    for i, image in enumerate(gallery.images):
        deltas = [gallery.delta_before[i], gallery.delta_after[i]]
        factor = compute_amplification(*deltas)
        sides = [
            {
                "when": when,
                "image": encode_image(image + delta),
                "delta": encode_perturbation(delta, factor),
                "fooled": fooled[i],
                "rho": float(rho[i]),
            }
            for when, delta, fooled, rho in zip(
                ("before", "after"),
                deltas,
                (gallery.fooled_before, gallery.fooled_after),
                (gallery.rho_before, gallery.rho_after),
                strict=True,
            )
        ]
        examples.append(
            {
                "image": encode_image(image),
                "label": gallery.labels[i],
                "amplification": format_number(factor, 2),
                "gray": image.shape[-1] == 1,
                "crisp": is_small(image),
                "sides": sides,
            }
        )
    return examples
