"""An evaluation from beginning to end: look, attack, compare, report."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

import numpy as np

from deepdefense.attacks.fgsm import fgsm
from deepdefense.errors import InputError
from deepdefense.evaluation.cache import AttackCache, Storage
from deepdefense.evaluation.checks import Check
from deepdefense.evaluation.dataset import fingerprint
from deepdefense.evaluation.doctor import run_network_checks
from deepdefense.evaluation.minima import (
    Minima,
    initial_minima,
    perturbation_size,
    run_suite,
    run_transfer,
)
from deepdefense.evaluation.plan import EvaluationPlan, Provenance
from deepdefense.evaluation.provenance import describe_environment
from deepdefense.evaluation.report import (
    ReferenceFigures,
    Report,
    Threat,
    make_headline,
    measure_intervals,
    measure_weakness,
    tabulate_attacks,
)
from deepdefense.evaluation.rho import Measurement, Summary, measure_rho, summarize_in_norm
from deepdefense.evaluation.statistics import (
    compare_distances,
    percentile_99,
    security_curve,
    summarize_distances,
    typical_distance,
)
from deepdefense.evaluation.subject import Subject, open_subject, pick_evenly, select_finite
from deepdefense.evaluation.suite import PlannedAttack, build_suite, estimate_seconds
from deepdefense.evaluation.trust import run_attack_checks
from deepdefense.seam.contract import Array, Model
from deepdefense.seam.progress import Watcher

__all__ = ["assess"]


def assess(
    model: Model,
    x: Array,
    y: Array,
    plan: EvaluationPlan,
    *,
    bounds: tuple[Any, Any] | None,
    reference: Model | None,
    about: Provenance,
    storage: Storage | None,
    watcher: Watcher,
) -> Report:
    """Everything that `evaluate` promises; results are stored as attacks end."""
    with open_subject(model, x, y, bounds=bounds, batch_size=plan.batch_size) as subject:
        marks = fingerprint([subject.x, subject.y, subject.logits])
        limits = _describe_bounds(subject)
        cache = AttackCache(
            storage,
            f"{version('deepdefense')} {marks} {_fingerprint_gradients(subject)} "
            f"{_fingerprint_bounds(subject.bounds)} {plan}",
        )
        summary, by_rho = _measure_paper_figures(subject, plan, plan.p, watcher)
        checks = list(run_network_checks(subject))
        watcher.say(_list_failing_checks(checks))
        networks = 1 if reference is None else 2
        found, planned = _run_attacks(subject, plan, cache, watcher, networks)
        side = other = None
        if reference is not None:
            side, other = _attack_reference(
                reference, subject, plan, planned, found, about, cache, watcher
            )
            found = run_transfer(subject, found, other)
        watcher.begin("checks of the attacks", 1)
        checks += run_attack_checks(subject, found, seed=plan.seed)
        radii = tuple(dict.fromkeys(attack.eps for attack in planned if attack.eps is not None))
        return Report(
            **vars(summary),
            backend=subject.backend.name,
            network=about.network,
            data=tuple((_describe_arrays(subject) | dict(about.data)).items()),
            threat=Threat(plan.p, limits),
            preset=plan.preset,
            seed=plan.seed,
            headline=make_headline(found, radii[0], checks),
            distance=summarize_distances(found.distance),
            curve=security_curve(found.distance),
            intervals=tuple(measure_intervals(by_rho, found, radii[0], plan.seed).items()),
            attacks=tabulate_attacks(found),
            checks=tuple(checks),
            weakness=measure_weakness(found, subject.y, subject.logits.shape[1]),
            reference=side,
            comparison=None
            if other is None
            else compare_distances(other.distance, found.distance, plan.seed),
            manifest=tuple(_manifest(subject, plan, planned, radii, marks).items()),
            minima=found,
            reference_minima=other,
            x=subject.x,
            y=subject.y,
        )


def _measure_paper_figures(
    subject: Subject, plan: EvaluationPlan, p: float, watcher: Watcher
) -> tuple[Summary, Measurement]:
    """The paper's figures, with rho in the norm p too, and what is behind rho_2."""

    def found(order: float) -> Measurement:
        watcher.begin(f"rho_{order:g} by DeepFool", len(subject.x))
        return measure_rho(
            subject.compiled,
            subject.x,
            subject.y,
            backend=subject.backend,
            like=subject.like,
            p=order,
            batch_size=subject.batch_size,
            progress=watcher.advance,
            **dict(plan.rho),
        )

    return summarize_in_norm(p, found)


def _run_attacks(
    subject: Subject, plan: EvaluationPlan, cache: AttackCache, watcher: Watcher, networks: int
) -> tuple[Minima, tuple[PlannedAttack, ...]]:
    """The suite; where no eps is given, within the median distance of its first part."""
    classes = subject.logits.shape[1]
    all_of_it = build_suite(plan.preset, plan.p, plan.eps or (0.0,), classes)
    seconds = networks * estimate_seconds(subject, all_of_it)
    watcher.say(
        f"{plan.preset}: {len(all_of_it)} attacks on {len(subject.x):,} examples, "
        f"about {f'{seconds:.0f} s' if seconds < 100 else f'{seconds / 60:.0f} min'}"
    )
    nearest = build_suite(plan.preset, plan.p, (), classes)
    known: Any = {"seed": plan.seed, "cache": cache, "watcher": watcher}
    found = run_suite(subject, initial_minima(subject, plan.p), nearest, **known)
    radii = plan.eps or (typical_distance(found.distance) or _default_radius(subject, plan.p),)
    within = build_suite(plan.preset, plan.p, radii, classes)[len(nearest) :]
    return run_suite(subject, found, within, **known), (*nearest, *within)


def _attack_reference(
    reference: Model,
    subject: Subject,
    plan: EvaluationPlan,
    planned: tuple[PlannedAttack, ...],
    found: Minima,
    about: Provenance,
    cache: AttackCache,
    watcher: Watcher,
) -> tuple[ReferenceFigures, Minima]:
    """The same figures of the undefended network, by the same attacks on the same examples."""
    with open_subject(
        reference,
        subject.x,
        subject.y,
        bounds=subject.bounds,
        batch_size=subject.batch_size,
        beside=subject,
    ) as other:
        if other.logits.shape != subject.logits.shape:
            raise InputError(
                f"the reference gives {other.logits.shape[1]} logits, the model "
                f"{subject.logits.shape[1]}: they must know the same classes"
            )
        watcher.say("the undefended network, by the same attacks")
        summary, _ = _measure_paper_figures(other, plan, 2, watcher)
        own = AttackCache(cache.storage, f"{cache.prefix} reference {fingerprint([other.logits])}")
        minima = run_suite(
            other,
            initial_minima(other, plan.p),
            planned,
            seed=plan.seed,
            cache=own,
            watcher=watcher,
        )
    side = ReferenceFigures(
        network=about.reference,
        accuracy=summary.accuracy,
        rho_2=summary.rho_2,
        rho_2_median=summary.rho_2_median,
        success=summary.success,
        iterations_mean=summary.iterations_mean,
        distance=summarize_distances(minima.distance),
        curve=security_curve(minima.distance, top=percentile_99(found.distance)),
    )
    return side, minima


def _manifest(
    subject: Subject,
    plan: EvaluationPlan,
    planned: tuple[PlannedAttack, ...],
    radii: tuple[float, ...],
    marks: str,
) -> dict[str, Any]:
    """All it takes to do it again."""
    return {
        "environment": describe_environment(subject.backend.name, subject.to_native(subject.x[:1])),
        "rho": {**dict(plan.rho), "from": "the predicted class", "bounds": "none"},
        "attacks": [
            {"name": attack.name, "kind": attack.kind, **dict(attack.settings)}
            for attack in planned
        ],
        "logits_divided_by": subject.scale,
        "eps": list(radii),
        "seed": plan.seed,
        "batch_size": plan.batch_size,
        "data_and_logits": marks,
    }


def _default_radius(subject: Subject, p: float) -> float:
    """A size to attack within where no perturbation is known: a tenth of an example's."""
    return 0.1 * float(np.median(perturbation_size(select_finite(subject.sample(100).x), p)))


def _fingerprint_gradients(subject: Subject) -> str:
    """A mark of the network's gradients: two that agree in their outputs may differ in these."""
    few = pick_evenly(np.arange(len(subject.x)), 8)
    found = fgsm(subject.scaled_logits, *subject.load_examples(few), eps=1.0, p=2)
    return fingerprint([np.round(subject.backend.to_numpy(found.delta), 2)])


def _fingerprint_bounds(bounds: tuple[Any, Any] | None) -> str:
    """A mark of the bounds, to the last digit."""
    return "none" if bounds is None else fingerprint(map(np.asarray, bounds))


def _describe_bounds(subject: Subject) -> str:
    """The bounds in words."""
    if subject.bounds is None:
        return "none"
    low, high = (np.asarray(bound, np.float64) for bound in subject.bounds)
    if low.ndim == high.ndim == 0:
        return f"{low:g} to {high:g}"
    widths = high - low
    narrow, wide = float(widths.min()), float(widths.max())
    width = f"{narrow:g}" if np.isclose(narrow, wide) else f"{narrow:g} to {wide:g}"
    return f"a range for each input, of width {width}"


def _describe_arrays(subject: Subject) -> dict[str, Any]:
    """What can be said of arrays whose origin is not known."""
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


def _list_failing_checks(checks: list[Check]) -> str:
    """The cheap checks as they are found: those that do not pass in full."""
    bad = [check for check in checks if check.status != "pass"]
    passed = f"{len(checks) - len(bad)} of {len(checks)} cheap checks pass"
    return "\n".join([passed, *map(str, bad)])
