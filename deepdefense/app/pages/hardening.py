"""Prepare the content of the page of a hardening run, and render it with hardening.html.j2."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
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
from deepdefense.app.pages.hardening_headline import judge_hardening
from deepdefense.app.pages.hardening_tables import (
    compute_percentile,
    list_rho_measures,
    tabulate_comparison,
    tabulate_rho_percentiles,
    tabulate_stages,
)
from deepdefense.app.pages.template import fill_template
from deepdefense.app.pages.wording import MISSING, format_number, format_percent
from deepdefense.evaluation.provenance import to_json
from deepdefense.seam.settings import help_texts
from deepdefense.training.guard import Guard
from deepdefense.training.recipe import Recipe
from deepdefense.training.report import HARDENING_SCHEMA, HardeningReport

__all__ = ["Gallery", "render_hardening"]


@dataclass(frozen=True)
class Gallery:
    """Pictures of a few held-out examples, and of the perturbations that DeepFool found for them.

    Fields with "before" in their names refer to the undefended reference network, and fields with
    "after" to the hardened network.
    """

    images: NumpyArray  # [n h w c], c = 1 or 3, in the display range 0..1
    delta_before: NumpyArray  # [n h w c], fools the reference network
    delta_after: NumpyArray  # [n h w c], fools the hardened network
    labels: tuple[str, ...]  # [n], the names of the true classes
    fooled_before: tuple[str, ...]  # [n], the classes predicted for the perturbed examples
    fooled_after: tuple[str, ...]
    rho_before: NumpyArray  # [n], rho_2 of the examples for the reference network
    rho_after: NumpyArray  # [n], rho_2 of the examples for the hardened network


def render_hardening(
    report: HardeningReport,
    *,
    rho_before: NumpyArray,
    rho_after: NumpyArray,
    gallery: Gallery | None,
) -> str:
    """Return the page as one HTML file with its pictures; equal input gives equal bytes.

    Args:
        report: the report of the hardening run.
        rho_before: rho_2 of each held-out example for the reference network; may be empty.
        rho_after: rho_2 of each held-out example for the hardened network; may be empty.
        gallery: the examples to show as pictures; None for data that are not images.
    """
    before, after = (values[np.isfinite(values)] for values in (rho_before, rho_after))
    return fill_template(
        "hardening.html.j2",
        report=report,
        schema=HARDENING_SCHEMA,
        verdict=judge_hardening(report),
        rows=tabulate_comparison(report),
        trained_rho=None if report.after.rho_p is None else list_rho_measures(report)[0].name,
        period=report.recipe.period_name,
        curves=_draw_periods(report),
        stages=tabulate_stages(report),
        distribution=_draw_rho_distribution(before, after),
        percentiles=tabulate_rho_percentiles(before, after),
        examples=[] if gallery is None else _show_gallery(gallery),
        settings=to_json(report.config),
        meanings=help_texts(type(report.defense), Recipe, Guard),
        network=asdict(report.network),
        data=to_json(report.data),
        environment={**report.environment, "backend": report.backend},
    )


def _draw_periods(report: HardeningReport) -> list[Markup]:
    """Draw charts of accuracy, rho_2 and the training losses over the periods of training.

    Return an empty list if no period is complete.
    """
    before, history = report.before, report.history
    if not history:
        return []
    # Take mean rho_2 on the sample that the history uses, so that period 0 is comparable.
    rho_before = report.sample.rho_2_before
    accuracy = [record.accuracy for record in history]
    rho = [record.rho_2 for record in history]
    entropy = [record.cross_entropy for record in history]
    penalty = [record.penalty for record in history]
    period, x_label = report.recipe.period_name, report.recipe.period_name.capitalize()
    first, last = (format_percent(value, before.n) for value in (before.accuracy, accuracy[-1]))
    end = f"after {period} {len(history)}"
    curves = [
        charts.draw_accuracy_curve(
            before.accuracy,
            accuracy,
            f"Accuracy over the {period}s: {first} before, {last} {end}.",
            x_label,
        ),
        charts.draw_rho_curve(
            rho_before,
            rho,
            f"Mean rho_2 over the {period}s: {_describe_ends([rho_before, *rho])} {end}.",
            x_label,
        ),
    ]
    if any(format_number(value) != MISSING for value in entropy + penalty):
        alt = (
            f"Training loss, first to last {period}: "
            f"cross-entropy {_describe_ends(entropy)}, penalty {_describe_ends(penalty)}."
        )
        curves.append(charts.draw_loss_curves(entropy, penalty, alt, x_label))
    return curves


def _describe_ends(values: Sequence[float | None]) -> str:
    """Return the first and the last value as text, such as "0.2 to 0.4"."""
    return f"{format_number(values[0])} to {format_number(values[-1])}"


def _draw_rho_distribution(before: NumpyArray, after: NumpyArray) -> Markup | None:
    """Draw histograms of rho_2 before and after hardening; None if both arrays are empty."""
    if not len(before) and not len(after):
        return None
    medians = [format_number(compute_percentile(values, 50)) for values in (before, after)]
    alt = (
        f"Histograms of rho_2, example by example: median {medians[0]} before, {medians[1]} after."
    )
    return charts.draw_rho_histogram(before, after, alt)


def _show_gallery(gallery: Gallery) -> list[dict[str, Any]]:
    """Return, for each example of the gallery, the variables that the template reads.

    Both perturbations of an example are amplified by the same factor, to be comparable.
    """
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
                "grey": image.shape[-1] == 1,
                "crisp": is_small(image),
                "sides": sides,
            }
        )
    return examples
