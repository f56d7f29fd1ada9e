"""Checks that compare the results of attacks with each other.

If a weak attack succeeds where a stronger attack fails, the gradients of the network probably
mislead the stronger attack.

Source: Athalye, Carlini and Wagner (2018), section 3.1; Carlini et al. (2019), "On evaluating
adversarial robustness", section 5.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

import numpy as np

from deepdefense import attacks
from deepdefense.evaluation.checks.check import Check, as_percent, grade, make_check
from deepdefense.evaluation.minima import AttackOutcome, Minima, perturbation_size
from deepdefense.evaluation.statistics import (
    ROUNDING,
    Values,
    is_robust,
    quantile,
    typical_distance,
)
from deepdefense.evaluation.subject import HostArray, Subject, expand_to

__all__ = [
    "check_claims",
    "check_deepfool_distance",
    "check_gradient_free",
    "check_larger_eps",
    "check_more_steps",
    "check_noise",
    "check_single_step",
    "check_transfer",
    "check_unbounded_attack",
]

WARN_SHARE, FAIL_SHARE = 0.02, 0.05  # most checks warn or fail above these shares of the examples
# DeepFool enlarges its perturbations by this fraction, in order to cross the decision boundary.
DEEPFOOL_OVERSHOOT = 0.02


def check_claims(minima: Minima) -> Check:
    """Check that `confirm_points` rejected only a small share of the reported perturbations."""
    rejected = sum(outcome.rejected for outcome in minima.outcomes)
    made = sum(int((np.isfinite(o.distance) & o.ran).sum()) for o in minima.outcomes) + rejected
    share = rejected / made if made else 0.0
    return make_check(
        "claims hold",
        grade(share, 0.01, FAIL_SHARE),
        f"{rejected:,} of {made:,} perturbed examples did not hold when tried alone",
        "The network's answer depends on the batch, on chance or on rounding; each of these counts "
        "as a failure of the attack.",
    )


def check_unbounded_attack(subject: Subject, minima: Minima, few: HostArray, seed: int) -> Check:
    """Check that APGD, with an eps larger than the spread of the data, succeeds on every example.

    Within such an eps, every example can be turned into every other one, so no network can be
    robust. An example on which an earlier attack succeeded also counts as a success. `few` holds
    the indices of the examples to attack.
    """
    x = subject.x[few]
    spread = float(np.max(perturbation_size(x - x.mean(0), minima.p)))
    eps = max(2 * spread, 4 * (typical_distance(minima.distance[few]) or 1.0))
    distance = np.minimum(
        minima.distance[few],
        _measure_distances(subject, few, attacks.apgd, minima.p, eps=eps, steps=50, seed=seed),
    )
    share = float(np.isinf(distance).mean())
    return make_check(
        "large eps reaches 0 %",
        grade(share, 0.0, WARN_SHARE, len(few)),
        f"within eps = {eps:.3g}, larger than the data, {as_percent(share)} of the examples stand",
        "No network can stand that: the attacks are blind to it. Look at the checks of gradients.",
    )


def check_larger_eps(subject: Subject, minima: Minima, few: HostArray, seed: int) -> Check:
    """Check that APGD rarely fails on an example on which it succeeded with a smaller eps.

    A perturbation within the smaller eps also lies within the larger eps, so such a failure is a
    fault of the attack. `few` holds the indices of the examples to attack.
    """
    distance = typical_distance(minima.distance[few]) or 1.0
    radii = [distance * factor for factor in (0.5, 1.0, 2.0, 4.0)]
    fooled = [
        np.isfinite(
            _measure_distances(subject, few, attacks.apgd, minima.p, eps=eps, steps=20, seed=seed)
        )
        for eps in radii
    ]
    lost = max(float((a & ~b).mean()) for a, b in pairwise(fooled))
    shares = ", ".join(as_percent(1 - float(f.mean())) for f in fooled)
    return make_check(
        "larger eps helps the attacker",
        grade(lost, WARN_SHARE, 2 * FAIL_SHARE, len(few)),
        f"accuracy under APGD within {', '.join(f'{eps:.3g}' for eps in radii)}: {shares}",
        "The attack gets lost on a rugged loss: take more steps and restarts, or smooth the model.",
    )


def check_more_steps(subject: Subject, minima: Minima, few: HostArray) -> Check:
    """Check that FMN with twice as many steps reduces the median distance only slightly.

    A large reduction means that the attacks have not converged. `few` holds the indices of the
    examples to attack.
    """
    runs = [o for o in minima.outcomes if o.attack.name == "fmn"]
    steps = runs[-1].attack.settings["steps"] if runs else 100
    repeated = _measure_distances(subject, few, attacks.fmn, minima.p, steps=2 * steps)
    nearest = np.minimum(minima.distance[few], repeated)
    before, after = quantile(minima.distance[few], 0.5), quantile(nearest, 0.5)
    gain = 1 - after / before if math.isfinite(before) else math.nan
    return make_check(
        "more steps change little",
        grade(gain, WARN_SHARE, 2 * FAIL_SHARE),
        f"with {2 * steps} steps instead of {steps} the median distance goes from {before:.3g} to "
        f"{after:.3g}",
        "The attacks have not converged: use a larger preset.",
    )


def check_single_step(subject: Subject, minima: Minima) -> Check:
    """Check that iterative attacks succeed on almost all examples on which FGSM succeeds.

    If the single step of FGSM succeeds where attacks with many steps fail, the gradients mislead
    these attacks.
    """
    correct = int((minima.distance > 0).sum())
    worst, evidence = 0.0, "no single step was tried"
    for outcome in (o for o in minima.outcomes if o.attack.name == "fgsm"):
        eps, ran = outcome.attack.eps or 0.0, outcome.ran
        single = np.isfinite(outcome.distance) & ran
        iterated = _fooled_by(
            minima, eps, lambda o: o.attack.name not in ("fgsm", "square", "transfer")
        )
        share = float((single & ~iterated)[ran].mean())
        if share >= worst:
            worst = share
            evidence = (
                f"within {eps:.3g} a single step fools {as_percent(float(single[ran].mean()))} of "
                f"the examples, iterated attacks {as_percent(float(iterated[ran].mean()))}; "
                f"{as_percent(share)} only the single step"
            )
    return make_check(
        "iterated attacks beat a single step",
        grade(worst, WARN_SHARE, FAIL_SHARE, correct),
        evidence,
        "Iterating must not do worse: the gradients mislead. Look at the checks of gradients.",
    )


def check_gradient_free(minima: Minima) -> Check:
    """Check that random search succeeds on hardly any example on which other attacks fail.

    The random search `square` uses no gradient. If it succeeds where attacks by gradients fail, the
    gradients mislead these attacks.
    """
    correct = int((minima.distance > 0).sum()) or 1
    worst, evidence = 0.0, "no gradient-free attack was run"
    for outcome in (o for o in minima.outcomes if o.attack.name == "square"):
        eps = outcome.attack.eps or 0.0
        fooled = np.isfinite(outcome.distance) & outcome.ran
        share = float(fooled.sum() / correct)
        if share >= worst:
            worst = share
            evidence = (
                f"within {eps:.3g} random search fools {as_percent(share)} of the examples that no "
                "attack by gradients did"
            )
    return make_check(
        "gradient-free attacks find no more",
        grade(worst, WARN_SHARE, FAIL_SHARE, correct),
        evidence,
        "The gradients hide what is there: the network is weaker than gradient attacks show.",
    )


def check_noise(subject: Subject, minima: Minima, rows: HostArray, seed: int) -> Check:
    """Check that random noise as large as the smallest perturbations rarely fools the network.

    If noise of the size of each example's smallest perturbation often fools the network, the
    attacks hardly do better than chance. `rows` holds the indices of the examples.

    The check always passes if an example has fewer than three input values, because a random
    direction is then often close to the best direction.
    """
    if math.prod(subject.x.shape[1:]) < 3:
        return make_check("noise does less", "pass", "so few inputs leave noise no other way")
    fooled = rows[np.isfinite(minima.distance[rows])]
    if not len(fooled):
        return make_check("noise does less", "fail", "no attack fooled any example", "See above.")
    noise = np.random.default_rng((seed, 5)).normal(size=subject.x[fooled].shape)
    size = perturbation_size(noise, minima.p)
    points = subject.displace(fooled, expand_to(minima.distance[fooled] / size, noise) * noise)
    share = float((subject.predict(points).argmax(1) != subject.y[fooled]).mean())
    return make_check(
        "noise does less",
        grade(share, FAIL_SHARE, 0.25),
        f"noise of the length of each example's smallest perturbation fools {as_percent(share)} of "
        "them",
        "Attacks hardly better than chance have not found the near boundary.",
    )


def check_transfer(minima: Minima, rows: HostArray) -> Check:
    """Check that attacks on this network beat perturbations found for the reference network.

    The check measures the share of the examples `rows` whose smallest perturbation comes from
    `run_transfer`. If it is large, this network's gradients probably mislead the other attacks.
    """
    transfers = [i for i, o in enumerate(minima.outcomes) if o.attack.name == "transfer"]
    share = float(np.isin(minima.by[rows], transfers).mean())
    return make_check(
        "transfer does less",
        grade(share, WARN_SHARE, FAIL_SHARE, len(rows)),
        f"on {as_percent(share)} of the examples the undefended network's perturbation fools at a "
        "smaller size than any attack on this one",
        "Attacks on the network itself should win: its gradients mislead them.",
    )


def check_deepfool_distance(minima: Minima, rows: HostArray) -> Check:
    """Check that DeepFool's perturbations are not much larger than the smallest ones found.

    If other attacks find much smaller ones, rho overstates the robustness of the network. `rows`
    holds the indices of the examples to compare.
    """
    runs = [o for o in minima.outcomes if o.attack.name == "deepfool"]
    if not runs:
        return make_check("DeepFool's distance", "pass", "DeepFool was not run", severe=False)
    deepfool, best = runs[0].distance[rows], minima.distance[rows]
    beaten = float((deepfool > best * (1 + DEEPFOOL_OVERSHOOT + ROUNDING)).mean())
    both = np.isfinite(deepfool) & np.isfinite(best) & (best > 0)
    factor = float(np.median(deepfool[both] / best[both])) if both.any() else math.inf
    return make_check(
        "DeepFool's distance",
        grade(factor - 1, 0.25, 1.0),
        f"another attack is nearer on {as_percent(beaten)} of the examples; the median of "
        f"DeepFool's distance over the best is {factor:.3g}",
        "Go by the distance over all attacks, not by rho: rho overstates robustness here.",
        severe=False,
    )


def _measure_distances(
    subject: Subject,
    rows: HostArray,
    attack: Callable[..., attacks.Perturbation],
    p: float,
    **options: object,
) -> Values:
    """Attack the m examples `rows`; return the sizes of the perturbations [m], inf for failures."""
    to_numpy = subject.backend.to_numpy
    parts = []
    for batch in subject.iterate_batches(rows):
        x, y = subject.load_examples(batch)
        result = attack(subject.scaled_logits, x, y, p=p, bounds=subject.native_bounds, **options)
        sizes = perturbation_size(to_numpy(result.x) - subject.x[batch], p)
        parts.append(np.where(to_numpy(result.success), sizes, math.inf))
    return np.concatenate(parts)


def _fooled_by(minima: Minima, eps: float, which: Callable[[AttackOutcome], bool]) -> HostArray:
    """Return a mask [n] of the examples on which an attack that `which` selects succeeds in eps."""
    fooled = np.zeros(len(minima.distance), bool)
    for outcome in filter(which, minima.outcomes):
        fooled |= ~is_robust(outcome.distance, eps) & outcome.ran
    return fooled
