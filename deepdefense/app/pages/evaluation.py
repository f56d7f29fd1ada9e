"""The evaluation as one HTML page: what stands on it; evaluation.html.j2 is how it looks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup

from deepdefense.app.pages.charts import HistogramSeries, draw_histogram, draw_security_curve
from deepdefense.app.pages.drawing import (
    NumpyArray,
    compute_amplification,
    encode_image,
    encode_perturbation,
    is_small,
)
from deepdefense.app.pages.evaluation_headline import (
    explain_withholding,
    judge_evaluation,
    name_norm,
)
from deepdefense.app.pages.evaluation_tables import (
    MOST_MAPPED_CLASSES,
    format_count,
    group_manifest,
    tabulate_classes,
    tabulate_main_figures,
    tabulate_quantiles,
)
from deepdefense.app.pages.template import fill_template
from deepdefense.app.pages.wording import format_number, format_percent
from deepdefense.evaluation.statistics import robust_accuracy

__all__ = ["WeakestExamples", "render_evaluation"]

CHECK_STATUSES = {"fail": ("Fails", "bad"), "warn": ("Warns", "mixed"), "pass": ("Passes", "good")}


@dataclass(frozen=True)
class WeakestExamples:
    """Pictures of the examples that the smallest perturbations fool."""

    images: NumpyArray  # [m h w c], c = 1 or 3, in display range 0..1
    deltas: NumpyArray  # [m h w c], same units as images
    labels: tuple[str, ...]
    fooled: tuple[str, ...]  # the class the perturbed example is taken for
    distances: NumpyArray  # [m], in the norm of the threat
    attacks: tuple[str, ...]  # which attack found it
    rows: tuple[int, ...]  # in the data


def render_evaluation(
    report: Mapping[str, Any],
    *,
    distances: NumpyArray,
    reference_distances: NumpyArray | None,
    gallery: WeakestExamples | None,
) -> str:
    """The evaluation as one HTML file, pictures included; the same input gives the same bytes.

    Args:
        report: the content of report.json.
        distances: the smallest perturbation found for each example [n], in the threat's norm; 0
            where it is misclassified without one, inf where no attack fooled it.
        reference_distances: the same of the undefended network on the same examples.
        gallery: examples to show; None for data that are not images.
    """
    eps, reference = report["headline"]["eps"], report["reference"]
    robust_before = None
    if reference_distances is not None and len(reference_distances) and eps is not None:
        robust_before = robust_accuracy(reference_distances, eps)
    sides = {"after" if reference else "this network": (report, distances)}
    if reference:
        before = np.zeros(0) if reference_distances is None else reference_distances
        sides = {"before": (reference, before), **sides}
    checks = sorted(report["checks"], key=_rank_check)
    names = report["data"]["class_names"] or []
    return fill_template(
        "evaluation.html.j2",
        report=report,
        verdict=judge_evaluation(report),
        withheld=explain_withholding(report) is not None,
        norm=name_norm(report["threat"]["p"]),
        rows=tabulate_main_figures(report, robust_before),
        quantiles=tabulate_quantiles(report),
        statuses=CHECK_STATUSES,
        checks=[check for check in checks if check["status"] != "pass"],
        passed=[check for check in checks if check["status"] == "pass"],
        curve=_draw_curve(report),
        distribution=_draw_distances(sides, report),
        not_drawn=[_describe_undrawn(name, side["distance"]) for name, (side, _) in sides.items()],
        classes=tabulate_classes(report["weakness"], names),
        mapped=len(report["weakness"]["counts"]) <= MOST_MAPPED_CLASSES,
        counted=sum(map(sum, report["weakness"]["counts"])),
        examples=[] if gallery is None else _show_weakest(gallery),
        facts_of={
            "Network": report["network"],
            "Data": {k: v for k, v in report["data"].items() if k != "class_names"},
            "Run": {key: report[key] for key in ("preset", "seed", "backend")},
        },
        manifest=group_manifest(report["manifest"]),
    )


def _rank_check(check: Mapping[str, Any]) -> tuple[int, bool]:
    """Failures first, among them the severe; checks of one kind keep their order."""
    return list(CHECK_STATUSES).index(check["status"]), not check["severe"]


def _draw_curve(report: Mapping[str, Any]) -> Markup | None:
    """The security curve; None without a point."""
    curve, reference = report["curve"], report["reference"]
    if not curve["eps"]:
        return None
    curves = (
        {"before": reference["curve"], "after": curve} if reference else {"this network": curve}
    )
    size = name_norm(report["threat"]["p"])
    alt = f"Accuracy under attack over the size of the perturbation ({size})"
    if explain_withholding(report) is None:
        last = len(curve["eps"]) - 1
        points = (
            f"{format_percent(curve['robust_accuracy'][i], report['n'])} "
            f"within {format_number(curve['eps'][i])}"
            for i in sorted({0, last // 4, last // 2, last})
        )
        alt += f": {', '.join(points)}"
    return draw_security_curve(
        curves,
        f"Size of the perturbation, {_norm_symbol(size)}",
        report["headline"]["eps"],
        f"{alt}.",
    )


def _norm_symbol(size: str) -> str:
    """The name of a norm as drawings have it: ℓ₂, ℓ∞."""
    order = size.removeprefix("l").replace("inf", "∞")
    return "\N{SCRIPT SMALL L}" + order.translate(str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉"))


def _draw_distances(
    sides: Mapping[str, tuple[Mapping[str, Any], NumpyArray]], report: Mapping[str, Any]
) -> Markup | None:
    """The histograms of the distances there are; None where there is none."""
    held, samples = explain_withholding(report) is not None, []
    for name, (side, distances) in sides.items():
        drawn = distances[np.isfinite(distances) & (distances > 0)]
        median = None if held else side["distance"].get("median")
        if len(drawn):
            samples.append(HistogramSeries(name, drawn, len(distances), median))
    if not samples:
        return None
    size = name_norm(report["threat"]["p"])
    told = [f"{each.name}, median {format_number(each.median)}" for each in samples if each.median]
    alt = f"Histograms of the distance, example by example{': ' if told else ''}{'; '.join(told)}."
    return draw_histogram(samples, f"Distance of an example, {_norm_symbol(size)}", alt)


def _describe_undrawn(name: str, distance: Mapping[str, Any]) -> str:
    """The examples of one network that have no bar."""
    wrong, censored = (format_count(distance.get(key)) for key in ("wrong", "censored"))
    return (
        f"{name}, {wrong} misclassified without an attack (distance 0) and {censored}"
        " not fooled by any attack (distance unknown)"
    )


def _show_weakest(gallery: WeakestExamples) -> list[dict[str, Any]]:
    """What the template shows of each example."""
    examples = []
    for i, (image, delta) in enumerate(zip(gallery.images, gallery.deltas, strict=True)):
        factor = compute_amplification(delta)
        examples.append(
            {
                "image": encode_image(image),
                "perturbed": encode_image(image + delta),
                "delta": encode_perturbation(delta, factor),
                "amplification": format_number(factor, 2),
                "label": gallery.labels[i],
                "fooled": gallery.fooled[i],
                "distance": float(gallery.distances[i]),
                "attack": gallery.attacks[i],
                "row": gallery.rows[i],
                "gray": image.shape[-1] == 1,
                "crisp": is_small(image),
            }
        )
    return examples
