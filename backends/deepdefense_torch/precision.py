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

    TensorFloat-32 rounds the factors of products to 11 bits. Training tolerates that. But a
    minimum-norm attack ends near a decision boundary. There, TensorFloat-32's rounding errors can
    change the predicted class, and these errors depend on the batch size.
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
    """Return PyTorch's settings that control TensorFloat-32.

    For each setting, return its setter, its present value, and the value that turns TensorFloat-32
    off. PyTorch 2.9 added new settings (`fp32_precision`), which override the old ones. Reading an
    old setting raises an error if it disagrees with the new one. So the result contains the new
    settings, and those old settings that can be read.
    """
    cudnn: Any = torch.backends.cudnn
    settings: list[tuple[Callable[[Any], None], Any, Any]] = []
    with suppress(RuntimeError):  # raised if the user has changed only the new settings
        settings.append((partial(setattr, cudnn, "allow_tf32"), cudnn.allow_tf32, False))
    with suppress(RuntimeError):
        precision = torch.get_float32_matmul_precision()
        settings.append((torch.set_float32_matmul_precision, precision, "highest"))
    if hasattr(cudnn, "conv"):
        for operation in (cudnn.conv, cudnn.rnn, torch.backends.cuda.matmul):
            set_value = partial(setattr, operation, "fp32_precision")
            settings.append((set_value, operation.fp32_precision, "ieee"))
    return settings
