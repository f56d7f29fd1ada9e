"""Prepare the content of the page of an evaluation, and render it with evaluation.html.j2."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

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
from deepdefense.app.pages.evaluation_headline import explain_withholding, judge_evaluation
from deepdefense.app.pages.evaluation_manifest import group_manifest
from deepdefense.app.pages.evaluation_tables import (
    MAX_CONFUSION_CLASSES,
    describe_attack_settings,
    tabulate_classes,
    tabulate_main_figures,
    tabulate_quantiles,
)
from deepdefense.app.pages.template import fill_template
from deepdefense.app.pages.wording import format_count, format_number, format_percent, name_norm
from deepdefense.evaluation.checks import Check
from deepdefense.evaluation.provenance import to_json
from deepdefense.evaluation.report import EVALUATION_SCHEMA, Report
from deepdefense.evaluation.statistics import Curve, Distance

__all__ = ["WeakestExamples", "render_evaluation"]

# The word and the CSS class of each status of a check. The page lists checks in this order.
CHECK_STATUSES = {"fail": ("Fails", "bad"), "warn": ("Warns", "mixed"), "pass": ("Passes", "good")}


@dataclass(frozen=True)
class WeakestExamples:
    """Pictures, for the page, of the examples that are fooled by the smallest perturbations."""

    images: NumpyArray  # [m h w c], c = 1 or 3, in the display range 0..1
    deltas: NumpyArray  # [m h w c], the perturbations, in the units of the images
    labels: tuple[str, ...]  # [m], the names of the true classes
    fooled: tuple[str, ...]  # [m], the classes predicted for the perturbed examples
    distances: NumpyArray  # [m], the sizes of the perturbations in the norm of the threat model
    attacks: tuple[str, ...]  # [m], the names of the attacks that found the perturbations
    rows: tuple[int, ...]  # [m], the indices of the examples in the evaluated data


class _NetworkCurves(NamedTuple):
    """The data of one network for the two charts of the page."""

    name: str
    distances: NumpyArray  # [n], the distance of each example
    summary: Distance  # statistics of the distances
    curve: Curve  # accuracy under attack as a function of the perturbation's size


def render_evaluation(report: Report, *, gallery: WeakestExamples | None) -> str:
    """Return the page as one HTML file with its pictures; equal input gives equal bytes.

    Args:
        report: the report of the evaluation.
        gallery: the examples to show as pictures; None for data that are not images.
    """
    networks = _list_networks(report)
    checks = sorted(report.checks, key=_rank_check)
    counts = report.weakness.counts
    data = to_json(report.data)
    return fill_template(
        "evaluation.html.j2",
        report=report,
        schema=EVALUATION_SCHEMA,
        verdict=judge_evaluation(report),
        withheld=explain_withholding(report) is not None,
        norm=name_norm(report.threat.p),
        rows=tabulate_main_figures(report),
        quantiles=tabulate_quantiles(report),
        statuses=CHECK_STATUSES,
        checks=[check for check in checks if check.status != "pass"],
        passed=[check for check in checks if check.status == "pass"],
        curve=_draw_curve(report, networks),
        distribution=_draw_distances(report, networks),
        not_drawn=[_describe_undrawn(network) for network in networks],
        describe_settings=describe_attack_settings,
        classes=tabulate_classes(report.weakness, data["class_names"]),
        mapped=len(counts) <= MAX_CONFUSION_CLASSES,
        counted=sum(map(sum, counts)),
        examples=[] if gallery is None else _show_weakest(gallery),
        network=asdict(report.network),
        data=data,
        run={"preset": report.preset, "seed": report.seed, "backend": report.backend},
        manifest=group_manifest(to_json(report.manifest)),
    )


def _list_networks(report: Report) -> list[_NetworkCurves]:
    """Return each network's data for the charts, with the reference network, if any, first."""
    reference, minima = report.reference, report.reference_minima
    name = "this network" if reference is None else "after"
    networks = [_NetworkCurves(name, report.distances, report.distance, report.curve)]
    if reference is not None and minima is not None:
        before = _NetworkCurves("before", minima.distance, reference.distance, reference.curve)
        networks.insert(0, before)
    return networks


def _rank_check(check: Check) -> tuple[int, bool]:
    """Return a sort key that puts failures first and, within a status, severe checks first."""
    return list(CHECK_STATUSES).index(check.status), not check.severe


def _draw_curve(report: Report, networks: Sequence[_NetworkCurves]) -> Markup | None:
    """Draw accuracy under attack over the perturbation's size; None if the curve has no point."""
    curve = report.curve
    if not curve.eps:
        return None
    norm = name_norm(report.threat.p)
    alt = f"Accuracy under attack over the size of the perturbation ({norm})"
    if explain_withholding(report) is None:
        last = len(curve.eps) - 1
        points = (
            f"{format_percent(curve.robust_accuracy[i], report.n)} "
            f"within {format_number(curve.eps[i])}"
            for i in sorted({0, last // 4, last // 2, last})
        )
        alt += f": {', '.join(points)}"
    return draw_security_curve(
        {network.name: network.curve for network in networks},
        f"Size of the perturbation, {_write_norm(norm)}",
        report.headline.eps,
        f"{alt}.",
    )


def _write_norm(name: str) -> str:
    """Return the name of a norm, such as l2 or linf, in mathematical signs: ℓ₂, ℓ∞."""
    order = name.removeprefix("l").replace("inf", "∞")
    return "\N{SCRIPT SMALL L}" + order.translate(str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉"))


def _draw_distances(report: Report, networks: Sequence[_NetworkCurves]) -> Markup | None:
    """Draw a histogram of each network's distances that are finite and positive.

    Return None if no network has such a distance.
    """
    withheld, series = explain_withholding(report) is not None, []
    for name, distances, summary, _ in networks:
        drawn = distances[np.isfinite(distances) & (distances > 0)]
        if len(drawn):
            median = None if withheld else summary.median
            series.append(HistogramSeries(name, drawn, len(distances), median))
    if not series:
        return None
    medians = [
        f"{each.name}, median {format_number(each.median)}" for each in series if each.median
    ]
    alt = "Histograms of the distance, example by example"
    if medians:
        alt += f": {'; '.join(medians)}"
    norm = _write_norm(name_norm(report.threat.p))
    return draw_histogram(series, f"Distance of an example, {norm}", f"{alt}.")


def _describe_undrawn(network: _NetworkCurves) -> str:
    """Return a phrase that says how many examples the network's histogram omits, and why."""
    wrong, censored = map(format_count, (network.summary.wrong, network.summary.censored))
    return (
        f"{network.name}, {wrong} misclassified without an attack (distance 0) and {censored}"
        " not fooled by any attack (distance unknown)"
    )


def _show_weakest(gallery: WeakestExamples) -> list[dict[str, Any]]:
    """Return, for each example of the gallery, the variables that the template reads."""
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
                "grey": image.shape[-1] == 1,
                "crisp": is_small(image),
            }
        )
    return examples
