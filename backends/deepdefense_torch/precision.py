"""Contexts that set the floating-point precision of PyTorch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

import torch

__all__ = ["without_autocast", "without_tf32"]


@contextmanager
def without_autocast() -> Iterator[None]:
    """Open a context in which every operation computes in the dtype of its tensors."""
    accelerator = "cuda" if torch.cuda.is_available() else "cpu"
    with torch.autocast("cpu", enabled=False), torch.autocast(accelerator, enabled=False):
        yield


@contextmanager
def without_tf32() -> Iterator[None]:
    """Open a context in which convolutions and matrix products do not use TensorFloat-32.

    TensorFloat-32 rounds factors to 11 bits. Training tolerates that, but a minimum-norm attack
    ends at a decision boundary, where such a prediction changes with the size of the batch.
    """
    settings = _settings()
    try:
        for set_value, _, inside in settings:
            set_value(inside)
        yield
    finally:
        for set_value, before, _ in settings:
            set_value(before)


def _settings() -> list[tuple[Callable[[Any], None], Any, Any]]:
    """Return the setter, the present value and the value without TensorFloat-32 of each setting.

    PyTorch 2.9 added a second set of settings, which overrules the first. Reading the first raises
    if the two disagree, so both are set where both can be.
    """
    cudnn: Any = torch.backends.cudnn
    settings: list[tuple[Callable[[Any], None], Any, Any]] = []
    with suppress(RuntimeError):  # the user has changed the second set
        settings.append((partial(setattr, cudnn, "allow_tf32"), cudnn.allow_tf32, False))
    with suppress(RuntimeError):
        precision = torch.get_float32_matmul_precision()
        settings.append((torch.set_float32_matmul_precision, precision, "highest"))
    if hasattr(cudnn, "conv"):
        for place in (cudnn.conv, cudnn.rnn, torch.backends.cuda.matmul):
            set_value = partial(setattr, place, "fp32_precision")
            settings.append((set_value, place.fp32_precision, "ieee"))
    return settings
