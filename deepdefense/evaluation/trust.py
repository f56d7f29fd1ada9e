"""The checks that compare attacks: do they find what is there, or does the network hide it?

Each is a sign of masked gradients (Athalye, Carlini and Wagner, 2018, section 3.1; Carlini et al.,
2019, "On evaluating adversarial robustness", section 5).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

import numpy as np

from deepdefense import attacks
from deepdefense.evaluation.checks import Check, grade, make_check
from deepdefense.evaluation.doctor import as_percent
from deepdefense.evaluation.minima import AttackOutcome, Minima, perturbation_size
from deepdefense.evaluation.statistics import (
    ROUNDING,
    Values,
    is_robust,
    quantile,
    typical_distance,
)
from deepdefense.evaluation.subject import HostArray, Subject, expand_to, pick_evenly

__all__ = ["run_attack_checks"]

COMPARED_EXAMPLES = 100  # examples that the further attacks here are run on
SLIGHT, PLAIN = 0.02, 0.05  # of the examples: from where a sign is a warning, and a failure


def run_attack_checks(subject: Subject, minima: Minima, *, seed: int) -> tuple[Check, ...]:
    """Every check of this kind."""
    rows = np.flatnonzero(subject.correct)
    if not len(rows):
        evidence = "the network is right on no example: there is nothing to attack"
        remedy = "Evaluate on examples that the network classifies."
        return (make_check("attacks", "fail", evidence, remedy),)
    few = pick_evenly(rows, COMPARED_EXAMPLES)
    found = [
        claims(minima),
        unbounded(subject, minima, few, seed),
        larger_eps(subject, minima, few, seed),
        more_steps(subject, minima, few, seed),
        single_step(subject, minima),
        gradient_free(minima),
        noise(subject, minima, few, seed),
        deepfool_distance(minima, rows),
    ]
    if any(outcome.attack.name == "transfer" for outcome in minima.outcomes):
        found.append(transfer_does_less(minima, rows))
    return tuple(found)


def _attack(
    subject: Subject,
    rows: HostArray,
    attack: Callable[..., attacks.Perturbation],
    p: float,
    **options: object,
) -> Values:
    """Distances [m] at which an attack fools those examples; inf where it does not."""
    parts = []
    for batch in subject.iterate_batches(rows):
        x, y = subject.load_examples(batch)
        found = attack(subject.scaled_logits, x, y, p=p, bounds=subject.native_bounds, **options)
        to_numpy = subject.backend.to_numpy
        sizes = perturbation_size(to_numpy(found.x) - subject.x[batch], p)
        parts.append(np.where(to_numpy(found.success), sizes, math.inf))
    return np.concatenate(parts)


def claims(minima: Minima) -> Check:
    """What attacks claimed to have found, and the network alone did not confirm."""
    rejected = sum(outcome.rejected for outcome in minima.outcomes)
    made = sum(int((np.isfinite(o.distance) & o.ran).sum()) for o in minima.outcomes) + rejected
    share = rejected / made if made else 0.0
    return make_check(
        "claims hold",
        grade(share, 0.01, PLAIN),
        f"{rejected:,} of {made:,} perturbed examples did not hold when tried alone",
        "The network's answer depends on the batch, on chance or on rounding; each of these counts "
        "as a failure of the attack.",
    )


def unbounded(subject: Subject, minima: Minima, few: HostArray, seed: int) -> Check:
    """With a perturbation as large as the data themselves, every example can be fooled."""
    x = subject.x[few]
    spread = float(np.max(perturbation_size(x - x.mean(0), minima.p)))
    eps = max(2 * spread, 4 * (typical_distance(minima.distance[few]) or 1.0))
    distance = np.minimum(
        minima.distance[few],
        _attack(subject, few, attacks.apgd, minima.p, eps=eps, steps=50, seed=seed),
    )
    share = float(np.isinf(distance).mean())
    return make_check(
        "large eps reaches 0 %",
        grade(share, 0.0, SLIGHT, len(few)),
        f"within eps = {eps:.3g}, larger than the data, {as_percent(share)} of the examples stand",
        "No network can stand that: the attacks are blind to it. Look at the checks of gradients.",
    )


def larger_eps(subject: Subject, minima: Minima, few: HostArray, seed: int) -> Check:
    """What fools within eps also fools within more; an attack that finds less is lost."""
    middle = typical_distance(minima.distance[few]) or 1.0
    radii = [middle * factor for factor in (0.5, 1.0, 2.0, 4.0)]
    fooled = [
        np.isfinite(_attack(subject, few, attacks.apgd, minima.p, eps=eps, steps=20, seed=seed))
        for eps in radii
    ]
    lost = max(float((a & ~b).mean()) for a, b in pairwise(fooled))
    shares = ", ".join(as_percent(1 - float(f.mean())) for f in fooled)
    return make_check(
        "larger eps helps the attacker",
        grade(lost, SLIGHT, 2 * PLAIN, len(few)),
        f"accuracy under APGD within {', '.join(f'{eps:.3g}' for eps in radii)}: {shares}",
        "The attack gets lost on a rugged loss: take more steps and restarts, or smooth the model.",
    )


def more_steps(subject: Subject, minima: Minima, few: HostArray, seed: int) -> Check:
    """Twice the steps of the minimum-norm walk, from the same beginning."""
    walked = [o for o in minima.outcomes if o.attack.name == "fmn"]
    steps = dict(walked[-1].attack.settings)["steps"] if walked else 100
    again = _attack(subject, few, attacks.fmn, minima.p, steps=2 * steps)
    nearest = np.minimum(minima.distance[few], again)
    before, after = quantile(minima.distance[few], 0.5), quantile(nearest, 0.5)
    gain = 1 - after / before if math.isfinite(before) else math.nan
    return make_check(
        "more steps change little",
        grade(gain, SLIGHT, 2 * PLAIN),
        f"with {2 * steps} steps instead of {steps} the median distance goes from {before:.3g} to "
        f"{after:.3g}",
        "The attacks have not converged: use a larger preset.",
    )


def single_step(subject: Subject, minima: Minima) -> Check:
    """An iterative attack finds what a single step does."""
    singles = [o for o in minima.outcomes if o.attack.name == "fgsm"]
    right = int((minima.distance > 0).sum())
    worst, evidence = 0.0, "no single step was tried"
    for outcome in singles:
        eps = outcome.attack.eps or 0.0
        one = np.isfinite(outcome.distance) & outcome.ran
        many = _fooled_by(
            minima, eps, lambda o: o.attack.name not in ("fgsm", "square", "transfer")
        )
        share = float((one & ~many)[outcome.ran].mean())
        if share >= worst:
            worst = share
            evidence = (
                f"within {eps:.3g} a single step fools {as_percent(float(one[outcome.ran].mean()))}"
                " of the examples, iterated attacks "
                f"{as_percent(float(many[outcome.ran].mean()))}; "
                f"{as_percent(share)} only the single step"
            )
    return make_check(
        "iterated attacks beat a single step",
        grade(worst, SLIGHT, PLAIN, right),
        evidence,
        "Iterating must not do worse: the gradients mislead. Look at the checks of gradients.",
    )


def _fooled_by(minima: Minima, eps: float, which: Callable[[AttackOutcome], bool]) -> HostArray:
    """Where one of these attacks found a point within eps: [n]."""
    fooled = np.zeros(len(minima.distance), bool)
    for outcome in filter(which, minima.outcomes):
        fooled |= ~is_robust(outcome.distance, eps) & outcome.ran
    return fooled


def gradient_free(minima: Minima) -> Check:
    """Random search, which asks for no gradient, finds nothing that gradients did not."""
    searches = [o for o in minima.outcomes if o.attack.name == "square"]
    worst, evidence = 0.0, "no gradient-free attack was run"
    right = int((minima.distance > 0).sum()) or 1
    for outcome in searches:
        eps = outcome.attack.eps or 0.0
        only = np.isfinite(outcome.distance) & outcome.ran  # it runs on what others left standing
        share = float(only.sum() / right)
        if share >= worst:
            worst = share
            evidence = (
                f"within {eps:.3g} random search fools {as_percent(share)} of the examples that no "
                "attack by gradients did"
            )
    return make_check(
        "gradient-free attacks find no more",
        grade(worst, SLIGHT, PLAIN, right),
        evidence,
        "The gradients hide what is there: the network is weaker than gradient attacks show.",
    )


def noise(subject: Subject, minima: Minima, rows: HostArray, seed: int) -> Check:
    """Noise as large as the smallest perturbation that fools: an attack does far better."""
    if math.prod(subject.x.shape[1:]) < 3:
        return make_check("noise does less", "pass", "so few inputs leave noise no other way")
    known = rows[np.isfinite(minima.distance[rows])]
    if not len(known):
        return make_check("noise does less", "fail", "no attack fooled any example", "See above.")
    random = np.random.default_rng((seed, 5)).normal(size=subject.x[known].shape)
    size = perturbation_size(random, minima.p)
    points = subject.displace(known, expand_to(minima.distance[known] / size, random) * random)
    share = float((subject.predict(points).argmax(1) != subject.y[known]).mean())
    return make_check(
        "noise does less",
        grade(share, PLAIN, 0.25),
        f"noise of the length of each example's smallest perturbation fools {as_percent(share)} of "
        "them",
        "Attacks hardly better than chance have not found the near boundary.",
    )


def transfer_does_less(minima: Minima, rows: HostArray) -> Check:
    """What fools the undefended network should fool this one less than attacks on itself do."""
    by = [i for i, outcome in enumerate(minima.outcomes) if outcome.attack.name == "transfer"]
    share = float(np.isin(minima.by[rows], by).mean())
    return make_check(
        "transfer does less",
        grade(share, SLIGHT, PLAIN, len(rows)),
        f"on {as_percent(share)} of the examples the undefended network's perturbation fools at a "
        "smaller size than any attack on this one",
        "Attacks on the network itself should win: its gradients mislead them.",
    )


def deepfool_distance(minima: Minima, rows: HostArray) -> Check:
    """DeepFool, which rho and the training of Deep Defense rest on, against the best of all."""
    walked: list[AttackOutcome] = [o for o in minima.outcomes if o.attack.name == "deepfool"]
    if not walked:
        return make_check("DeepFool's distance", "pass", "DeepFool was not run", severe=False)
    own, best = walked[0].distance[rows], minima.distance[rows]
    beaten = float((own > best * (1 + 0.02 + ROUNDING)).mean())  # it oversteps by 2 %
    both = np.isfinite(own) & np.isfinite(best) & (best > 0)
    factor = float(np.median(own[both] / best[both])) if both.any() else math.inf
    return make_check(
        "DeepFool's distance",
        grade(factor - 1, 0.25, 1.0),
        f"another attack is nearer on {as_percent(beaten)} of the examples; the median of "
        f"DeepFool's distance over the best is {factor:.3g}",
        "Go by the distance over all attacks, not by rho: rho overstates robustness here.",
        severe=False,
    )
