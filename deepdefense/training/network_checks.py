"""Check that a network fits the data, and warn of reasons to doubt its measurement."""

from __future__ import annotations

from typing import Any

import numpy as np

from deepdefense.errors import InputError
from deepdefense.evaluation.dataset import Dataset
from deepdefense.evaluation.feature_scales import describe_unequal_scales
from deepdefense.evaluation.rho_protocol import Summary
from deepdefense.seam.training_contract import TrainingBackend
from deepdefense.seam.validation import call_model, is_softmax

__all__ = ["check_network", "count_logits", "count_weights", "list_warnings"]


def count_weights(backend: TrainingBackend, model: Any) -> int:
    """Return the number of elements in all parameters and batch-norm statistics of a model."""
    return sum(value.size for value in backend.weights(model).values())


def check_network(backend: TrainingBackend, model: Any, data: Dataset) -> int:
    """Return the number of the model's logits, which may be larger than the number of classes.

    Raises `InputError` unless the model has parameters, accepts the data and returns a logit for
    each class.
    """
    logits = count_logits(backend, model, data)
    if logits < data.classes:
        raise InputError(
            f"the network must return logits [b k] for {data.classes} classes, it returned "
            f"{logits} for each example, but the labels go up to {data.classes - 1}: relabel, or "
            "give a network with more logits"
        )
    return logits


def count_logits(backend: TrainingBackend, model: Any, data: Dataset) -> int:
    """Return the number k of the logits [b k] that the model returns for training examples.

    Raises `InputError` unless the model has parameters, accepts the data and returns logits.
    """
    if not count_weights(backend, model):
        raise InputError(
            f"the model has no parameters to train (a {type(model).__name__} that {backend.name} "
            "sees no weights in): give the module, or in JAX a pytree with them as its leaves, say "
            "jax.tree_util.Partial(apply, params) or equinox.filter_vmap(module)"
        )
    batch = backend.asarray(data.x_train[:2], model)
    with backend.inference(model) as f:
        logits = backend.to_numpy(call_model(f, batch))
    if logits.ndim != 2:
        raise InputError(
            f"the network must return logits [b k] for {data.classes} classes, "
            f"it returned shape {list(logits.shape)} for a batch of {len(batch)}"
        )
    if is_softmax(logits):
        raise InputError(
            "the network must return logits, it returned probabilities (no output is negative, "
            "and they sum to 1): leave the softmax out"
        )
    return int(logits.shape[1])


def list_warnings(before: Summary, data: Dataset) -> list[str]:
    """Return a warning for each reason to doubt the measurement of the network before training."""
    warnings = []
    if missing := data.name_missing(np.arange(data.classes)):
        warnings.append(
            f"the network has {data.classes} classes, of which no training example has {missing}: "
            "hardening may change what it makes of them"
        )
    # Guessing has the accuracy a = 1 / classes. Warn if accuracy is below a + 0.1 * (1 - a).
    if before.accuracy < 0.1 + 0.9 / data.classes:
        warnings.append(
            f"before hardening the network is right on {before.accuracy:.1%} only: were its "
            "weights trained on this data, preprocessed in this way?"
        )
    if before.success < 0.99:
        warnings.append(
            f"DeepFool succeeded on {before.success:.1%} of the examples only, so rho says little"
        )
    if unequal := describe_unequal_scales(data):
        warnings.append(unequal)
    if before.unmeasured:
        warnings.append(f"{before.unmeasured} examples have no rho (all zero, or not finite)")
    return warnings
