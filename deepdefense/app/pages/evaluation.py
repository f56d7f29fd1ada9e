"""The evaluation as one HTML page: what stands on it; evaluation.html.j2 is how it looks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup

from deepdefense.app.pages.drawing import Array, amplification, amplified, is_small, picture
from deepdefense.app.pages.evaluation_tables import (
    MAPPED,
    class_lines,
    count,
    main_figures,
    manifest_groups,
    quantiles,
)
from deepdefense.app.pages.evaluation_verdict import judge_evaluation, norm, untrusted
from deepdefense.app.pages.figures import Sample, security_curve, spread
from deepdefense.app.pages.template import fill
from deepdefense.app.pages.wording import number, percent
from deepdefense.evaluation.statistics import robust_accuracy

__all__ = ["Weakest", "render_evaluation"]

STATUSES = {"fail": ("Fails", "bad"), "warn": ("Warns", "mixed"), "pass": ("Passes", "good")}


@dataclass(frozen=True)
class Weakest:
    """Pictures of the examples that the smallest perturbations fool."""

    images: Array  # [m h w c], c = 1 or 3, in display range 0..1
    deltas: Array  # [m h w c], same units as images
    labels: tuple[str, ...]
    fooled: tuple[str, ...]  # the class the perturbed example is taken for
    distances: Array  # [m], in the norm of the threat
    attacks: tuple[str, ...]  # which attack found it
    rows: tuple[int, ...]  # in the data


def render_evaluation(
    report: Mapping[str, Any],
    *,
    distances: Array,
    reference_distances: Array | None,
    gallery: Weakest | None,
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
    checks = sorted(report["checks"], key=_urgency)
    names = report["data"]["class_names"] or []
    return fill(
        "evaluation.html.j2",
        report=report,
        verdict=judge_evaluation(report),
        withheld=untrusted(report) is not None,
        norm=norm(report["threat"]["p"]),
        rows=main_figures(report, robust_before),
        quantiles=quantiles(report),
        statuses=STATUSES,
        checks=[check for check in checks if check["status"] != "pass"],
        passed=[check for check in checks if check["status"] == "pass"],
        curve=_curve(report),
        distribution=_distribution(sides, report),
        not_drawn=[_not_drawn(name, side["distance"]) for name, (side, _) in sides.items()],
        classes=class_lines(report["weakness"], names),
        mapped=len(report["weakness"]["counts"]) <= MAPPED,
        counted=sum(map(sum, report["weakness"]["counts"])),
        examples=[] if gallery is None else _examples(gallery),
        facts_of={
            "Network": report["network"],
            "Data": {k: v for k, v in report["data"].items() if k != "class_names"},
            "Run": {key: report[key] for key in ("preset", "seed", "backend")},
        },
        manifest=manifest_groups(report["manifest"]),
    )


def _urgency(check: Mapping[str, Any]) -> tuple[int, bool]:
    """Failures first, among them the severe; checks of one kind keep their order."""
    return list(STATUSES).index(check["status"]), not check["severe"]


def _curve(report: Mapping[str, Any]) -> Markup | None:
    """The security curve; None without a point."""
    curve, reference = report["curve"], report["reference"]
    if not curve["eps"]:
        return None
    curves = (
        {"before": reference["curve"], "after": curve} if reference else {"this network": curve}
    )
    size = norm(report["threat"]["p"])
    alt = f"Accuracy under attack over the size of the perturbation ({size})"
    if untrusted(report) is None:
        last = len(curve["eps"]) - 1
        points = (
            f"{percent(curve['robust_accuracy'][i], report['n'])} within {number(curve['eps'][i])}"
            for i in sorted({0, last // 4, last // 2, last})
        )
        alt += f": {', '.join(points)}"
    return security_curve(
        curves, f"Size of the perturbation, {_sign(size)}", report["headline"]["eps"], f"{alt}."
    )


def _sign(size: str) -> str:
    """The name of a norm as drawings have it: ℓ₂, ℓ∞."""
    order = size.removeprefix("l").replace("inf", "∞")
    return "\N{SCRIPT SMALL L}" + order.translate(str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉"))


def _distribution(
    sides: Mapping[str, tuple[Mapping[str, Any], Array]], report: Mapping[str, Any]
) -> Markup | None:
    """The histograms of the distances there are; None where there is none."""
    held, samples = untrusted(report) is not None, []
    for name, (side, distances) in sides.items():
        drawn = distances[np.isfinite(distances) & (distances > 0)]
        median = None if held else side["distance"].get("median")
        if len(drawn):
            samples.append(Sample(name, drawn, len(distances), median))
    if not samples:
        return None
    size = norm(report["threat"]["p"])
    told = [f"{each.name}, median {number(each.median)}" for each in samples if each.median]
    alt = f"Histograms of the distance, example by example{': ' if told else ''}{'; '.join(told)}."
    return spread(samples, f"Distance of an example, {_sign(size)}", alt)


def _not_drawn(name: str, distance: Mapping[str, Any]) -> str:
    """The examples of one network that have no bar."""
    wrong, censored = (count(distance.get(key)) for key in ("wrong", "censored"))
    return (
        f"{name}, {wrong} misclassified without an attack (distance 0) and {censored}"
        " not fooled by any attack (distance unknown)"
    )


def _examples(gallery: Weakest) -> list[dict[str, Any]]:
    """What the template shows of each example."""
    examples = []
    for i, (image, delta) in enumerate(zip(gallery.images, gallery.deltas, strict=True)):
        factor = amplification(delta)
        examples.append(
            {
                "image": picture(image),
                "perturbed": picture(image + delta),
                "delta": amplified(delta, factor),
                "amplification": number(factor, 2),
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
