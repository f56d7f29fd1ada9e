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
from deepdefense.evaluation.checks import Check, checked, graded
from deepdefense.evaluation.doctor import percent
from deepdefense.evaluation.minima import Minima, Outcome, length
from deepdefense.evaluation.statistics import ROUNDING, Values, quantile, stands, typical
from deepdefense.evaluation.subject import Host, Subject, columned, evenly

__all__ = ["compare_attacks"]

SAMPLE = 100  # examples that the further attacks here are run on
SLIGHT, PLAIN = 0.02, 0.05  # of the examples: from where a sign is a warning, and a failure


def compare_attacks(subject: Subject, minima: Minima, *, seed: int) -> tuple[Check, ...]:
    """Every check of this kind."""
    rows = np.flatnonzero(subject.correct)
    if not len(rows):
        evidence = "the network is right on no example: there is nothing to attack"
        remedy = "Evaluate on examples that the network classifies."
        return (checked("attacks", "fail", evidence, remedy),)
    few = evenly(rows, SAMPLE)
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
    rows: Host,
    attack: Callable[..., attacks.Perturbation],
    p: float,
    **options: object,
) -> Values:
    """Distances [m] at which an attack fools those examples; inf where it does not."""
    parts = []
    for batch in subject.batches(rows):
        x, y = subject.examples(batch)
        found = attack(subject.f, x, y, p=p, bounds=subject.native_bounds, **options)
        to_numpy = subject.backend.to_numpy
        sizes = length(to_numpy(found.x) - subject.x[batch], p)
        parts.append(np.where(to_numpy(found.success), sizes, math.inf))
    return np.concatenate(parts)


def claims(minima: Minima) -> Check:
    """What attacks claimed to have found, and the network alone did not confirm."""
    rejected = sum(outcome.rejected for outcome in minima.outcomes)
    made = sum(int((np.isfinite(o.distance) & o.ran).sum()) for o in minima.outcomes) + rejected
    share = rejected / made if made else 0.0
    return checked(
        "claims hold",
        graded(share, 0.01, PLAIN),
        f"{rejected:,} of {made:,} perturbed examples did not hold when tried alone",
        "The network's answer depends on the batch, on chance or on rounding; each of these counts "
        "as a failure of the attack.",
    )


def unbounded(subject: Subject, minima: Minima, few: Host, seed: int) -> Check:
    """With a perturbation as large as the data themselves, every example can be fooled."""
    x = subject.x[few]
    spread = float(np.max(length(x - x.mean(0), minima.p)))
    eps = max(2 * spread, 4 * (typical(minima.distance[few]) or 1.0))
    distance = np.minimum(
        minima.distance[few],
        _attack(subject, few, attacks.apgd, minima.p, eps=eps, steps=50, seed=seed),
    )
    share = float(np.isinf(distance).mean())
    return checked(
        "large eps reaches 0 %",
        graded(share, 0.0, SLIGHT, len(few)),
        f"within eps = {eps:.3g}, larger than the data, {percent(share)} of the examples stand",
        "No network can stand that: the attacks are blind to it. Look at the checks of gradients.",
    )


def larger_eps(subject: Subject, minima: Minima, few: Host, seed: int) -> Check:
    """What fools within eps also fools within more; an attack that finds less is lost."""
    middle = typical(minima.distance[few]) or 1.0
    radii = [middle * factor for factor in (0.5, 1.0, 2.0, 4.0)]
    fooled = [
        np.isfinite(_attack(subject, few, attacks.apgd, minima.p, eps=eps, steps=20, seed=seed))
        for eps in radii
    ]
    lost = max(float((a & ~b).mean()) for a, b in pairwise(fooled))
    shares = ", ".join(percent(1 - float(f.mean())) for f in fooled)
    return checked(
        "larger eps helps the attacker",
        graded(lost, SLIGHT, 2 * PLAIN, len(few)),
        f"accuracy under APGD within {', '.join(f'{eps:.3g}' for eps in radii)}: {shares}",
        "The attack gets lost on a rugged loss: take more steps and restarts, or smooth the model.",
    )


def more_steps(subject: Subject, minima: Minima, few: Host, seed: int) -> Check:
    """Twice the steps of the minimum-norm walk, from the same beginning."""
    walked = [o for o in minima.outcomes if o.attack.name == "fmn"]
    steps = dict(walked[-1].attack.settings)["steps"] if walked else 100
    again = _attack(subject, few, attacks.fmn, minima.p, steps=2 * steps)
    nearest = np.minimum(minima.distance[few], again)
    before, after = quantile(minima.distance[few], 0.5), quantile(nearest, 0.5)
    gain = 1 - after / before if math.isfinite(before) else math.nan
    return checked(
        "more steps change little",
        graded(gain, SLIGHT, 2 * PLAIN),
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
                f"within {eps:.3g} a single step fools {percent(float(one[outcome.ran].mean()))} "
                f"of the examples, iterated attacks {percent(float(many[outcome.ran].mean()))}; "
                f"{percent(share)} only the single step"
            )
    return checked(
        "iterated attacks beat a single step",
        graded(worst, SLIGHT, PLAIN, right),
        evidence,
        "Iterating must not do worse: the gradients mislead. Look at the checks of gradients.",
    )


def _fooled_by(minima: Minima, eps: float, which: Callable[[Outcome], bool]) -> Host:
    """Where one of these attacks found a point within eps: [n]."""
    fooled = np.zeros(len(minima.distance), bool)
    for outcome in filter(which, minima.outcomes):
        fooled |= ~stands(outcome.distance, eps) & outcome.ran
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
                f"within {eps:.3g} random search fools {percent(share)} of the examples that no "
                "attack by gradients did"
            )
    return checked(
        "gradient-free attacks find no more",
        graded(worst, SLIGHT, PLAIN, right),
        evidence,
        "The gradients hide what is there: the network is weaker than gradient attacks show.",
    )


def noise(subject: Subject, minima: Minima, rows: Host, seed: int) -> Check:
    """Noise as large as the smallest perturbation that fools: an attack does far better."""
    if math.prod(subject.x.shape[1:]) < 3:
        return checked("noise does less", "pass", "so few inputs leave noise no other way")
    known = rows[np.isfinite(minima.distance[rows])]
    if not len(known):
        return checked("noise does less", "fail", "no attack fooled any example", "See above.")
    random = np.random.default_rng((seed, 5)).normal(size=subject.x[known].shape)
    size = length(random, minima.p)
    points = subject.displaced(known, columned(minima.distance[known] / size, random) * random)
    share = float((subject.predict(points).argmax(1) != subject.y[known]).mean())
    return checked(
        "noise does less",
        graded(share, PLAIN, 0.25),
        f"noise of the length of each example's smallest perturbation fools {percent(share)} of "
        "them",
        "Attacks hardly better than chance have not found the near boundary.",
    )


def transfer_does_less(minima: Minima, rows: Host) -> Check:
    """What fools the undefended network should fool this one less than attacks on itself do."""
    by = [i for i, outcome in enumerate(minima.outcomes) if outcome.attack.name == "transfer"]
    share = float(np.isin(minima.by[rows], by).mean())
    return checked(
        "transfer does less",
        graded(share, SLIGHT, PLAIN, len(rows)),
        f"on {percent(share)} of the examples the undefended network's perturbation fools at a "
        "smaller size than any attack on this one",
        "Attacks on the network itself should win: its gradients mislead them.",
    )


def deepfool_distance(minima: Minima, rows: Host) -> Check:
    """DeepFool, which rho and the training of Deep Defense rest on, against the best of all."""
    walked: list[Outcome] = [o for o in minima.outcomes if o.attack.name == "deepfool"]
    if not walked:
        return checked("DeepFool's distance", "pass", "DeepFool was not run", severe=False)
    own, best = walked[0].distance[rows], minima.distance[rows]
    beaten = float((own > best * (1 + 0.02 + ROUNDING)).mean())  # it oversteps by 2 %
    both = np.isfinite(own) & np.isfinite(best) & (best > 0)
    factor = float(np.median(own[both] / best[both])) if both.any() else math.inf
    return checked(
        "DeepFool's distance",
        graded(factor - 1, 0.25, 1.0),
        f"another attack is nearer on {percent(beaten)} of the examples; the median of DeepFool's "
        f"distance over the best is {factor:.3g}",
        "Go by the distance over all attacks, not by rho: rho overstates robustness here.",
        severe=False,
    )
