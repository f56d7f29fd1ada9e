"""Carries out an evaluation: checks the network, attacks it, and makes the report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from deepdefense.errors import InputError
from deepdefense.evaluation.cache import AttackCache, Storage
from deepdefense.evaluation.checks import Check
from deepdefense.evaluation.checks.run_checks import run_attack_checks, run_network_checks
from deepdefense.evaluation.dataset import fingerprint
from deepdefense.evaluation.manifest import (
    default_radius,
    describe_arrays,
    describe_bounds,
    fingerprint_evaluation,
    make_manifest,
)
from deepdefense.evaluation.minima import Minima, initial_minima
from deepdefense.evaluation.plan import EvaluationPlan
from deepdefense.evaluation.presets import PlannedAttack, build_suite, estimate_seconds
from deepdefense.evaluation.provenance import Provenance
from deepdefense.evaluation.report import Report, Threat
from deepdefense.evaluation.report_parts import (
    make_headline,
    make_reference_figures,
    measure_intervals,
    measure_weakness,
    tabulate_attacks,
)
from deepdefense.evaluation.rho_protocol import Measurement, Summary, measure_rho, summarize_in_norm
from deepdefense.evaluation.run_attacks import AttackRunner, run_transfer
from deepdefense.evaluation.statistics import (
    compare_distances,
    security_curve,
    summarize_distances,
    typical_distance,
)
from deepdefense.evaluation.subject import Subject, open_subject
from deepdefense.seam.contract import Array, Model
from deepdefense.seam.frozen_dict import FrozenDict
from deepdefense.seam.progress import Watcher
from deepdefense.seam.threads import TRIAL_EXAMPLES, ThreadRecord, Work, fit_threads

__all__ = ["assess"]


def assess(
    model: Model,
    x: Array,
    y: Array,
    plan: EvaluationPlan,
    *,
    bounds: tuple[Any, Any] | None,
    reference: Model | None,
    provenance: Provenance,
    storage: Storage | None,
    threads: ThreadRecord | None = None,
    watcher: Watcher,
) -> Report:
    """Evaluate a model on examples x [n ...] with labels y [n], and return the report.

    Args:
        model: the network to evaluate: a batch [b ...] -> logits [b k].
        x: examples [n ...].
        y: labels [n].
        plan: the settings of the evaluation.
        bounds: (low, high), the range of perturbed examples, or None.
        reference: an undefended network that the same attacks run on, for comparison, or None.
        provenance: the descriptions of the networks and the data for the report.
        storage: a store of the attacks' results, to resume an interrupted evaluation, or None.
        threads: a store of the number of CPU threads, to resume an interrupted evaluation, or None.
        watcher: the object that receives the progress.
    """
    with (
        open_subject(model, x, y, bounds=bounds, batch_size=plan.batch_size) as subject,
        fit_threads(
            subject.backend,
            model,
            subject.to_native(subject.x[:1]),
            lambda: _make_trial(subject),
            record=threads,
            watcher=watcher,
        ),
    ):
        cache = AttackCache(storage, f"{fingerprint_evaluation(subject)} {plan}")
        runner = AttackRunner(plan.seed, cache, watcher)
        summary, by_rho = _measure_paper_figures(subject, plan, plan.p, watcher)
        checks = run_network_checks(subject)
        watcher.say(_summarize_checks(checks))
        networks = 1 if reference is None else 2
        minima, planned = _attack_subject(subject, plan, runner, networks)
        reference_figures = reference_minima = None
        if reference is not None:
            reference_summary, reference_minima = _attack_reference(
                reference, subject, plan, planned, runner
            )
            reference_figures = make_reference_figures(
                provenance.reference, reference_summary, reference_minima, beside=minima
            )
            minima = run_transfer(subject, minima, reference_minima)
        watcher.begin("checks of the attacks", 1)
        checks += run_attack_checks(subject, minima, seed=plan.seed)
        first_eps = next(attack.eps for attack in planned if attack.eps is not None)
        return Report(
            **vars(summary),
            backend=subject.backend.name,
            network=provenance.network,
            data=FrozenDict({**describe_arrays(subject), **provenance.data}),
            threat=Threat(plan.p, describe_bounds(subject)),
            preset=plan.preset,
            seed=plan.seed,
            headline=make_headline(minima, first_eps, checks),
            distance=summarize_distances(minima.distance),
            curve=security_curve(minima.distance),
            intervals=measure_intervals(by_rho, minima, first_eps, plan.seed),
            attacks=tabulate_attacks(minima),
            checks=checks,
            weakness=measure_weakness(minima, subject.y, subject.logits.shape[1]),
            reference=reference_figures,
            comparison=None
            if reference_minima is None
            else compare_distances(reference_minima.distance, minima.distance, plan.seed),
            manifest=make_manifest(subject, plan, planned),
            minima=minima,
            reference_minima=reference_minima,
            x=subject.x,
            y=subject.y,
        )


def _make_trial(subject: Subject) -> Work:
    """Return a function that computes the logits and one gradient in the input, for a batch."""
    backend = subject.backend
    x, _ = subject.load_examples(np.arange(min(len(subject.x), subject.batch_size, TRIAL_EXAMPLES)))
    flat = backend.xp.reshape(x, (len(x), -1))

    def compute_gradient() -> None:
        logits, pull = backend.vjp(
            lambda flat: subject.compiled(backend.xp.reshape(flat, x.shape)), flat, twice=False
        )
        pull(backend.xp.ones_like(logits))

    return compute_gradient


def _measure_paper_figures(
    subject: Subject, plan: EvaluationPlan, p: float, watcher: Watcher
) -> tuple[Summary, Measurement]:
    """Measure accuracy and rho in the 2-norm, and also in the p-norm if p is not 2.

    Return a summary of both, and the measurement of each example in the 2-norm.
    """

    def measure(order: float) -> Measurement:
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
            **plan.rho,
        )

    return summarize_in_norm(p, measure)


def _attack_subject(
    subject: Subject, plan: EvaluationPlan, runner: AttackRunner, networks: int
) -> tuple[Minima, tuple[PlannedAttack, ...]]:
    """Run all attacks of the plan's preset; return the smallest perturbations, and the attacks.

    `networks` is the number of networks that the attacks will run on, for the estimate of the time.
    """
    classes = subject.logits.shape[1]
    announced = build_suite(plan.preset, plan.p, plan.eps or (0.0,), classes)
    seconds = networks * estimate_seconds(subject, announced)
    runner.watcher.say(
        f"{plan.preset}: {len(announced)} attacks on {len(subject.x):,} examples, "
        f"about {f'{seconds:.0f} s' if seconds < 100 else f'{seconds / 60:.0f} min'}"
    )
    minimum_norm = build_suite(plan.preset, plan.p, (), classes)
    minima = runner.run_suite(subject, initial_minima(subject, plan.p), minimum_norm)
    # Without an eps, the minimum-norm attacks determine the radius of the fixed-budget attacks.
    radii = plan.eps or (typical_distance(minima.distance) or default_radius(subject, plan.p),)
    fixed_budget = build_suite(plan.preset, plan.p, radii, classes)[len(minimum_norm) :]
    return runner.run_suite(subject, minima, fixed_budget), (*minimum_norm, *fixed_budget)


def _attack_reference(
    reference: Model,
    subject: Subject,
    plan: EvaluationPlan,
    planned: tuple[PlannedAttack, ...],
    runner: AttackRunner,
) -> tuple[Summary, Minima]:
    """Measure the reference network, and run the attacks `planned` on the examples of `subject`.

    Return its accuracy and rho, and its smallest perturbations.
    """
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
        runner.watcher.say("the undefended network, by the same attacks")
        summary, _ = _measure_paper_figures(other, plan, 2, runner.watcher)
        prefix = f"{runner.cache.prefix} reference {fingerprint([other.logits])}"
        other_runner = replace(runner, cache=replace(runner.cache, prefix=prefix))
        return summary, other_runner.run_suite(other, initial_minima(other, plan.p), planned)


def _summarize_checks(checks: Sequence[Check]) -> str:
    """Return a text with the number of checks that pass, and the full text of all other checks."""
    bad = [check for check in checks if check.status != "pass"]
    passed = f"{len(checks) - len(bad)} of {len(checks)} cheap checks pass"
    return "\n".join([passed, *map(str, bad)])
