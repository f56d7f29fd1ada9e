"""Measure hardening steps on a GPU, with large batches, in float32 and under bfloat16 autocast."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch

from benchmarks.hardening import make_steps
from benchmarks.subjects import CLASSES, LARGE, make_resnet18
from benchmarks.timing import time_alternately
from deepdefense.evaluation.dataset import Dataset
from deepdefense.seam.training_contract import training_backend
from deepdefense.zoo import NETWORKS

__all__ = ["measure_lenet", "measure_resnet18"]

DEVICE = "cuda"
LENET_BATCH = 4096
SIDE = 224  # the height and width of the images for ResNet-18
# The batch sizes for ResNet-18. The smaller one is for methods that need too much memory with the
# larger one.
BATCHES = (256, 64)
# "bfloat16" means that the step runs under autocast, as is common in training. Autocast applies to
# the cross-entropy alone. The penalty is computed in float32, because near a boundary logits differ
# by less than bfloat16 can represent.
DTYPES = ("float32", "bfloat16")


def _run_in(dtype: str, call: Callable[[], object]) -> Callable[[], object]:
    """Return a function that makes the call, under autocast if `dtype` is "bfloat16"."""

    def run() -> None:
        with torch.autocast(DEVICE, torch.bfloat16, enabled=dtype == "bfloat16"):
            call()  # returns only when the GPU is done, because a step returns losses as numbers

    return run


def _measure_memory(call: Callable[[], object]) -> float | None:
    """Return the peak GPU memory during a call in MB, or None if the GPU has too little memory."""
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    try:
        call()
    except torch.OutOfMemoryError:
        return None
    return torch.cuda.max_memory_allocated() / 2**20


def _measure_steps(
    subject: str, model: Any, x: torch.Tensor, y: Any, rounds: int
) -> Iterator[dict[str, Any]]:
    for dtype in DTYPES:
        steps = make_steps("torch", model, x, y)
        calls = {method: _run_in(dtype, step) for method, step in steps.items()}
        memory = {method: _measure_memory(call) for method, call in calls.items()}
        fitting = {method: call for method, call in calls.items() if memory[method] is not None}
        timings = time_alternately(fitting, base="plain", rounds=rounds, warmup=1)
        for method in calls:
            timing = timings.get(method)
            yield {
                "subject": subject,
                "batch": len(x),
                "dtype": dtype,
                "way": method,
                "seconds": timing and timing.seconds,
                "ratio": timing and timing.ratio,
                "share of plain throughput": timing and 1 / timing.ratio,
                "memory_mb": memory[method] or "more than there is",
            }


def measure_lenet(
    weights: Mapping[str, np.ndarray], data: Dataset, rounds: int
) -> Iterator[dict[str, Any]]:
    """Measure the steps of all methods for a trained LeNet on a large batch of MNIST."""
    backend = training_backend("torch")
    with backend.on_device(DEVICE):
        model = backend.build(NETWORKS["lenet"](data.x_train.shape[1:], data.classes), weights)
    x = backend.asarray(data.x_train[:LENET_BATCH], model)
    yield from _measure_steps("lenet", model, x, data.y_train[:LENET_BATCH], rounds)


def measure_resnet18(rounds: int) -> Iterator[dict[str, Any]]:
    """Measure the steps of all methods for ResNet-18's layers on noise images of 224 x 224."""
    for batch in BATCHES:
        with training_backend("torch").on_device(DEVICE):
            torch.manual_seed(0)
            x = torch.randn(batch, 3, SIDE, SIDE)
            model = make_resnet18(CLASSES, x)
        with torch.no_grad():
            # The labels are the predicted classes, so all examples are classified correctly. In
            # real training, most examples are.
            y = model.eval()(x).argmax(1).cpu().numpy()
        yield from _measure_steps(LARGE, model, x, y, rounds)
