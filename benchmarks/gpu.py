"""Hardening steps on a GPU at useful sizes, in single precision and beside bfloat16."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch

from benchmarks.hardening import calls_of
from benchmarks.subjects import CLASSES, resnet18_shaped
from benchmarks.timing import alternated
from deepdefense.evaluation.dataset import Dataset
from deepdefense.seam.training import training_backend
from deepdefense.zoo import NETWORKS

__all__ = ["lenet", "resnet18"]

DEVICE = "cuda"
LENET_BATCH = 4096
SIDE = 224
# Of ResNet-18: the whole one, and a smaller one that leaves room for what keeps more.
BATCHES = (256, 64)
# `bfloat16` is autocast's: the cross-entropy's forward and backward pass, as in ordinary training;
# the penalty stays in single precision, as near a boundary logits differ by less than bfloat16 can.
DTYPES = ("float32", "bfloat16")


def _under(dtype: str, call: Callable[[], object]) -> Callable[[], object]:
    """The same call, by autocast where it is to be bfloat16."""

    def run() -> None:
        with torch.autocast(DEVICE, torch.bfloat16, enabled=dtype == "bfloat16"):
            call()  # which waits for the GPU, as it tells the losses

    return run


def _held(call: Callable[[], object]) -> float | None:
    """The most memory that a call has on the device, in MB; None if the device has not so much."""
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    try:
        call()
    except torch.OutOfMemoryError:
        return None
    return torch.cuda.max_memory_allocated() / 2**20


def _rows(subject: str, model: Any, x: torch.Tensor, y: Any, rounds: int) -> Iterator[Any]:
    for dtype in DTYPES:
        steps = calls_of("torch", model, x, y)
        calls = {way: _under(dtype, step) for way, step in steps.items()}
        held = {way: _held(call) for way, call in calls.items()}
        fit = {way: call for way, call in calls.items() if held[way] is not None}
        found = alternated(fit, base="plain", rounds=rounds, warmup=1)
        for way in calls:
            timing = found.get(way)
            yield {
                "subject": subject,
                "batch": len(x),
                "dtype": dtype,
                "way": way,
                "seconds": timing and timing.seconds,
                "ratio": timing and timing.ratio,
                "share of plain throughput": timing and 1 / timing.ratio,
                "memory_mb": held[way] or "more than there is",
            }


def lenet(weights: Mapping[str, np.ndarray], data: Dataset, rounds: int) -> Iterator[Any]:
    """A trained LeNet on a large batch of MNIST."""
    backend = training_backend("torch")
    with backend.on_device(DEVICE):
        model = backend.build(NETWORKS["lenet"](data.x_train.shape[1:], data.classes), weights)
    x = backend.asarray(data.x_train[:LENET_BATCH], model)
    yield from _rows("lenet", model, x, data.y_train[:LENET_BATCH], rounds)


def resnet18(rounds: int) -> Iterator[Any]:
    """A ResNet-18-shaped network of 1,000 classes on noise of ImageNet's size."""
    for batch in BATCHES:
        with training_backend("torch").on_device(DEVICE):
            torch.manual_seed(0)
            x = torch.randn(batch, 3, SIDE, SIDE)
            model = resnet18_shaped(CLASSES, x)
        with torch.no_grad():
            y = model.eval()(x).argmax(1).cpu().numpy()  # right examples, as most are in training
        yield from _rows(f"resnet18-shaped, {CLASSES} classes", model, x, y, rounds)
