"""Checks that the output for an example does not depend on chance or on the rest of the batch."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from deepdefense.evaluation.checks.check import Check, as_percent, make_check
from deepdefense.evaluation.subject import HostArray, Subject

__all__ = ["check_batch_independence", "check_randomness"]

# The checks report changes of a logit that exceed this fraction of `_logit_spread`. Rounding
# alone changes a logit by less.
LEAST_CHANGE = 1e-3


def check_randomness(few: Subject) -> Check:
    """Check that three forward passes on the same examples give the same outputs.

    It calls the uncompiled model, because a compiled one may reuse its first random numbers.
    """
    uncompiled = replace(few, compiled=few.network)
    first, *others = (uncompiled.predict(few.x) for _ in range(3))
    largest, share = max(_compare_outputs(few, first, other) for other in others)
    return make_check(
        "randomness",
        "fail" if share > 0 else "pass",
        f"the same examples gave outputs that differ by up to {as_percent(largest)} of their spread"
        if share > 0
        else "the same examples give the same outputs",
        "Attacks that see one draw are fooled by the next: make the model deterministic, or "
        "evaluate its mean over many draws.",
    )


def check_batch_independence(few: Subject, logits: HostArray) -> Check:
    """Check that the logits of an example do not depend on the other examples of its batch.

    The check compares `logits` [n k] with the logits of the reversed examples, and with logits
    computed in batches of one.
    """
    reordered = few.predict(few.x[::-1])[::-1]
    alone = few.predict(few.x, batch_size=1)
    largest, share = max(_compare_outputs(few, logits, other) for other in (reordered, alone))
    return make_check(
        "batch independence",
        "fail" if share > 0 else "pass",
        f"{as_percent(share)} of the outputs change with the batch they are in, by up to "
        f"{as_percent(largest)} of their spread"
        if share > 0
        else "outputs do not depend on the batch",
        "Use the statistics of training: a model that normalises by the batch has no prediction "
        "for one example.",
    )


def _compare_outputs(subject: Subject, first: HostArray, second: HostArray) -> tuple[float, float]:
    """Return the largest change of a logit, and the share of examples that change noticeably.

    A change is |first - second| / `_logit_spread`, and it is noticeable above `LEAST_CHANGE`.
    """
    changes = np.abs(first.astype(np.float64) - second).max(1) / (_logit_spread(subject) or 1.0)
    changes = np.where(np.isfinite(changes), changes, 0.0)
    return float(changes.max(initial=0.0)), float((changes > LEAST_CHANGE).mean())


def _logit_spread(subject: Subject) -> float:
    """Return the standard deviation of finite logits over the classes, averaged over examples."""
    finite = subject.logits[np.isfinite(subject.logits).all(1)]
    return float(finite.std(1).mean()) if len(finite) else 0.0
