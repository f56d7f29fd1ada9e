"""Contexts that turn off PyTorch's reduced floating-point precision."""

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

    A minimum-norm attack ends near a decision boundary, where the rounding errors of TensorFloat-32
    can change the predicted class.
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
    """Return the settings of TensorFloat-32, as triples (setter, present value, value for off).

    PyTorch 2.9 added new settings (`fp32_precision`), which override the old ones.
    """
    cudnn: Any = torch.backends.cudnn
    settings: list[tuple[Callable[[Any], None], Any, Any]] = []
    with suppress(RuntimeError):  # reading an old setting raises if it disagrees with the new one
        settings.append((partial(setattr, cudnn, "allow_tf32"), cudnn.allow_tf32, False))
    with suppress(RuntimeError):
        precision = torch.get_float32_matmul_precision()
        settings.append((torch.set_float32_matmul_precision, precision, "highest"))
    if hasattr(cudnn, "conv"):
        for operation in (cudnn.conv, cudnn.rnn, torch.backends.cuda.matmul):
            set_value = partial(setattr, operation, "fp32_precision")
            settings.append((set_value, operation.fp32_precision, "ieee"))
    return settings
