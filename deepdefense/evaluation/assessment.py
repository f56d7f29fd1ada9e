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
from deepdefense.evaluation.doctor import examine
from deepdefense.evaluation.minima import Minima, length, run_suite, run_transfer, start
from deepdefense.evaluation.plan import About, Plan
from deepdefense.evaluation.provenance import environment
from deepdefense.evaluation.report import (
    Report,
    Side,
    Threat,
    attack_lines,
    headline,
    intervals,
    weakness,
)
from deepdefense.evaluation.rho import Measurement, Summary, in_norm, measure
from deepdefense.evaluation.statistics import compare, curve, distances, largest, typical
from deepdefense.evaluation.subject import Subject, evenly, finite, posed
from deepdefense.evaluation.suite import Attack, seconds_expected, suite
from deepdefense.evaluation.trust import compare_attacks
from deepdefense.seam.contract import Array, Model
from deepdefense.seam.progress import Watcher

__all__ = ["assess"]


def assess(
    model: Model,
    x: Array,
    y: Array,
    plan: Plan,
    *,
    bounds: tuple[Any, Any] | None,
    reference: Model | None,
    about: About,
    storage: Storage | None,
    watcher: Watcher,
) -> Report:
    """Everything that `evaluate` promises; results are stored as attacks end."""
    with posed(model, x, y, bounds=bounds, batch_size=plan.batch_size) as subject:
        marks = fingerprint([subject.x, subject.y, subject.logits])
        limits = _bounds(subject)
        cache = AttackCache(
            storage,
            f"{version('deepdefense')} {marks} {_slopes(subject)} {_exact(subject.bounds)} {plan}",
        )
        summary, by_rho = _paper(subject, plan, plan.p, watcher)
        checks = list(examine(subject))
        watcher.say(_told(checks))
        networks = 1 if reference is None else 2
        found, planned = _attacked(subject, plan, cache, watcher, networks)
        side = other = None
        if reference is not None:
            side, other = _undefended(
                reference, subject, plan, planned, found, about, cache, watcher
            )
            found = run_transfer(subject, found, other)
        watcher.begin("checks of the attacks", 1)
        checks += compare_attacks(subject, found, seed=plan.seed)
        radii = tuple(dict.fromkeys(attack.eps for attack in planned if attack.eps is not None))
        return Report(
            **vars(summary),
            backend=subject.backend.name,
            network=about.network,
            data=tuple((_data(subject) | dict(about.data)).items()),
            threat=Threat(plan.p, limits),
            preset=plan.preset,
            seed=plan.seed,
            headline=headline(found, radii[0], checks),
            distance=distances(found.distance),
            curve=curve(found.distance),
            intervals=tuple(intervals(by_rho, found, radii[0], plan.seed).items()),
            attacks=attack_lines(found),
            checks=tuple(checks),
            weakness=weakness(found, subject.y, subject.logits.shape[1]),
            reference=side,
            comparison=None
            if other is None
            else compare(other.distance, found.distance, plan.seed),
            manifest=tuple(_manifest(subject, plan, planned, radii, marks).items()),
            minima=found,
            reference_minima=other,
            x=subject.x,
            y=subject.y,
        )


def _paper(subject: Subject, plan: Plan, p: float, watcher: Watcher) -> tuple[Summary, Measurement]:
    """The paper's figures, with rho in the norm p too, and what is behind rho_2."""

    def found(order: float) -> Measurement:
        watcher.begin(f"rho_{order:g} by DeepFool", len(subject.x))
        return measure(
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

    return in_norm(p, found)


def _attacked(
    subject: Subject, plan: Plan, cache: AttackCache, watcher: Watcher, networks: int
) -> tuple[Minima, tuple[Attack, ...]]:
    """The suite; where no eps is given, within the median distance of its first part."""
    classes = subject.logits.shape[1]
    all_of_it = suite(plan.preset, plan.p, plan.eps or (0.0,), classes)
    seconds = networks * seconds_expected(subject, all_of_it)
    watcher.say(
        f"{plan.preset}: {len(all_of_it)} attacks on {len(subject.x):,} examples, "
        f"about {f'{seconds:.0f} s' if seconds < 100 else f'{seconds / 60:.0f} min'}"
    )
    nearest = suite(plan.preset, plan.p, (), classes)
    known: Any = {"seed": plan.seed, "cache": cache, "watcher": watcher}
    found = run_suite(subject, start(subject, plan.p), nearest, **known)
    radii = plan.eps or (typical(found.distance) or _some_size(subject, plan.p),)
    within = suite(plan.preset, plan.p, radii, classes)[len(nearest) :]
    return run_suite(subject, found, within, **known), (*nearest, *within)


def _undefended(
    reference: Model,
    subject: Subject,
    plan: Plan,
    planned: tuple[Attack, ...],
    found: Minima,
    about: About,
    cache: AttackCache,
    watcher: Watcher,
) -> tuple[Side, Minima]:
    """The same figures of the undefended network, by the same attacks on the same examples."""
    with posed(
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
        summary, _ = _paper(other, plan, 2, watcher)
        own = AttackCache(cache.storage, f"{cache.prefix} reference {fingerprint([other.logits])}")
        minima = run_suite(
            other, start(other, plan.p), planned, seed=plan.seed, cache=own, watcher=watcher
        )
    side = Side(
        network=about.reference,
        accuracy=summary.accuracy,
        rho_2=summary.rho_2,
        rho_2_median=summary.rho_2_median,
        success=summary.success,
        iterations_mean=summary.iterations_mean,
        distance=distances(minima.distance),
        curve=curve(minima.distance, top=largest(found.distance)),
    )
    return side, minima


def _manifest(
    subject: Subject,
    plan: Plan,
    planned: tuple[Attack, ...],
    radii: tuple[float, ...],
    marks: str,
) -> dict[str, Any]:
    """All it takes to do it again."""
    return {
        "environment": environment(subject.backend.name, subject.native(subject.x[:1])),
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


def _some_size(subject: Subject, p: float) -> float:
    """A size to attack within where no perturbation is known: a tenth of an example's."""
    return 0.1 * float(np.median(length(finite(subject.sample(100).x), p)))


def _slopes(subject: Subject) -> str:
    """A mark of the network's gradients: two that agree in their outputs may differ in these."""
    few = evenly(np.arange(len(subject.x)), 8)
    found = fgsm(subject.f, *subject.examples(few), eps=1.0, p=2)
    return fingerprint([np.round(subject.backend.to_numpy(found.delta), 2)])


def _exact(bounds: tuple[Any, Any] | None) -> str:
    """A mark of the bounds, to the last digit."""
    return "none" if bounds is None else fingerprint(map(np.asarray, bounds))


def _bounds(subject: Subject) -> str:
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


def _data(subject: Subject) -> dict[str, Any]:
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


def _told(checks: list[Check]) -> str:
    """The cheap checks as they are found: those that do not pass in full."""
    bad = [check for check in checks if check.status != "pass"]
    passed = f"{len(checks) - len(bad)} of {len(checks)} cheap checks pass"
    return "\n".join([passed, *map(str, bad)])
