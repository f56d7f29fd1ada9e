"""Describes the inputs of an evaluation for its report, and computes fingerprints of them."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

import numpy as np

from deepdefense.attacks.fgsm import fgsm
from deepdefense.evaluation.dataset import fingerprint
from deepdefense.evaluation.minima import perturbation_size
from deepdefense.evaluation.plan import EvaluationPlan
from deepdefense.evaluation.presets import PlannedAttack
from deepdefense.evaluation.provenance import describe_environment
from deepdefense.evaluation.subject import Subject, pick_evenly, select_finite
from deepdefense.seam.frozen_dict import FrozenDict

__all__ = [
    "default_radius",
    "describe_arrays",
    "describe_bounds",
    "fingerprint_evaluation",
    "make_manifest",
]


def make_manifest(
    subject: Subject, plan: EvaluationPlan, planned: tuple[PlannedAttack, ...]
) -> FrozenDict[Any]:
    """Return the `manifest` of a report, with the versions, settings and seed that reproduce it.

    The manifest's key `eps` lists the radii of the fixed-budget attacks.
    """
    radii = dict.fromkeys(attack.eps for attack in planned if attack.eps is not None)
    return FrozenDict(
        environment=describe_environment(subject.backend.name, subject.to_native(subject.x[:1])),
        rho={**plan.rho, "from": "the predicted class", "bounds": "none"},
        attacks=[
            {"name": attack.name, "kind": attack.kind, **attack.settings} for attack in planned
        ],
        logits_divided_by=subject.scale,
        eps=list(radii),
        seed=plan.seed,
        batch_size=plan.batch_size,
        data_and_logits=_fingerprint_outputs(subject),
    )


def fingerprint_evaluation(subject: Subject) -> str:
    """Return a text that identifies the inputs of an evaluation, for the keys of the cache.

    The text changes if the outputs or the gradients of the network, the examples, the labels, the
    bounds or the version of this package change.
    """
    outputs, gradients = _fingerprint_outputs(subject), _fingerprint_gradients(subject)
    bounds = subject.bounds
    exact = "none" if bounds is None else fingerprint(map(np.asarray, bounds))
    return f"{version('deepdefense')} {outputs} {gradients} {exact}"


def _fingerprint_outputs(subject: Subject) -> str:
    return fingerprint([subject.x, subject.y, subject.logits])


def _fingerprint_gradients(subject: Subject) -> str:
    """Return a fingerprint of the input gradients at eight examples.

    The normalised gradients are rounded to two decimals, so that small numerical differences
    between runs seldom change the fingerprint.
    """
    few = pick_evenly(np.arange(len(subject.x)), 8)
    result = fgsm(subject.scaled_logits, *subject.load_examples(few), eps=1.0, p=2)
    return fingerprint([np.round(subject.backend.to_numpy(result.delta), 2)])


def describe_bounds(subject: Subject) -> str:
    """Return a phrase that describes the bounds of the perturbed examples, for the report."""
    if subject.bounds is None:
        return "none"
    low, high = (np.asarray(bound, np.float64) for bound in subject.bounds)
    if low.ndim == high.ndim == 0:
        return f"{low:g} to {high:g}"
    widths = high - low
    narrow, wide = float(widths.min()), float(widths.max())
    width = f"{narrow:g}" if np.isclose(narrow, wide) else f"{narrow:g} to {wide:g}"
    return f"a range for each input, of width {width}"


def describe_arrays(subject: Subject) -> dict[str, Any]:
    """Return a description of examples that were passed as arrays, for the report's key `data`."""
    classes = subject.logits.shape[1]
    return {
        "name": "arrays",
        "test": len(subject.x),
        "of": len(subject.x),
        "classes": classes,
        "class_names": tuple(str(i) for i in range(classes)),
        "input_shape": tuple(subject.x.shape[1:]),
        "preprocessing": "as given",
        "fingerprint": fingerprint([subject.x, subject.y]),
    }


def default_radius(subject: Subject, p: float) -> float:
    """Return the eps of the fixed-budget attacks if all minimum-norm attacks fail.

    It is a tenth of the median norm ||x||_p of at most 100 examples.
    """
    return 0.1 * float(np.median(perturbation_size(select_finite(subject.sample(100).x), p)))
