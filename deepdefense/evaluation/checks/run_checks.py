"""Runs all checks of the network, and all checks of the results of attacks on the network."""

from __future__ import annotations

import numpy as np

from deepdefense.evaluation.checks import (
    attack_comparison,
    determinism,
    gradients,
    logits_and_inputs,
)
from deepdefense.evaluation.checks.check import Check, make_check
from deepdefense.evaluation.minima import Minima
from deepdefense.evaluation.subject import Subject, pick_evenly

__all__ = ["run_attack_checks", "run_network_checks"]

NETWORK_CHECK_EXAMPLES = 64
ATTACK_CHECK_EXAMPLES = 100


def run_network_checks(subject: Subject) -> tuple[Check, ...]:
    """Run every check that needs no attack, and return the results.

    Checks that need further forward passes or gradients use at most `NETWORK_CHECK_EXAMPLES`
    examples.
    """
    few = subject.sample(NETWORK_CHECK_EXAMPLES)
    logits = few.predict(few.x)
    return (
        logits_and_inputs.check_logit_values(subject),
        logits_and_inputs.check_input_range(subject),
        logits_and_inputs.check_accuracy(subject),
        logits_and_inputs.check_training_mode(subject),
        determinism.check_randomness(few),
        determinism.check_batch_independence(few, logits),
        logits_and_inputs.check_saturation(subject),
        *gradients.check_input_gradients(few),
        gradients.check_second_derivative(few),
    )


def run_attack_checks(subject: Subject, minima: Minima, *, seed: int) -> tuple[Check, ...]:
    """Run every check of the attacks' results `minima`.

    Some checks run further attacks, with `seed`, on at most `ATTACK_CHECK_EXAMPLES` examples.
    """
    rows = np.flatnonzero(subject.correct)
    if not len(rows):
        evidence = "the network is right on no example: there is nothing to attack"
        remedy = "Evaluate on examples that the network classifies."
        return (make_check("attacks", "fail", evidence, remedy),)
    few = pick_evenly(rows, ATTACK_CHECK_EXAMPLES)
    checks = (
        attack_comparison.check_claims(minima),
        attack_comparison.check_unbounded_attack(subject, minima, few, seed),
        attack_comparison.check_larger_eps(subject, minima, few, seed),
        attack_comparison.check_more_steps(subject, minima, few),
        attack_comparison.check_single_step(subject, minima),
        attack_comparison.check_gradient_free(minima),
        attack_comparison.check_noise(subject, minima, few, seed),
        attack_comparison.check_deepfool_distance(minima, rows),
    )
    if any(outcome.attack.name == "transfer" for outcome in minima.outcomes):
        return (*checks, attack_comparison.check_transfer(minima, rows))
    return checks
