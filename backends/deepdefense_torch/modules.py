"""Open PyTorch modules and Keras models in inference mode."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.compiler import is_compiling

from deepdefense_torch.precision import without_autocast

__all__ = ["is_compiled", "open_inference"]

Forward = Callable[[Tensor], Tensor]


def is_compiled(model: Forward) -> bool:
    """Return whether `torch.compile` made the function, or the module or one of its submodules."""
    parts = model.modules() if isinstance(model, torch.nn.Module) else [model]
    marks = ("_orig_mod", "_compiled_call_impl", "_torchdynamo_orig_callable")
    return any(getattr(part, mark, None) is not None for part in parts for mark in marks)


@contextmanager
def open_inference(model: Forward) -> Iterator[Forward]:
    """Yield the model in inference mode; on exit restore its modes and the global random state."""
    modules = list(model.modules()) if isinstance(model, torch.nn.Module) else []
    modes = [module.training for module in modules]
    devices = {tensor.device for module in modules[:1] for tensor in module.parameters()}
    gpus = [device for device in devices if device.type == "cuda"]
    compiling = is_compiling()
    with (
        # The compiler cannot trace the next two contexts.
        nullcontext() if compiling else torch.inference_mode(False),
        nullcontext() if compiling else torch.random.fork_rng(devices=gpus),
        without_autocast(),
    ):
        try:
            for module in modules:
                module.training = False
            keras = sys.modules.get("keras")
            if keras and isinstance(model, keras.Layer):
                from deepdefense_keras.models import open_inference as open_keras

                with open_keras(model) as f:
                    yield f
            else:
                yield _with_fixed_buffers(model) if compiling and any(modes) else model
        finally:
            for module, mode in zip(modules, modes, strict=True):
                module.training = mode


@torch.library.custom_op(
    "deepdefense::snapshot", mutates_args=(), schema="(Tensor value) -> Tensor"
)
def _snapshot(value: Tensor) -> Tensor:
    return value.clone()


_snapshot.register_fake(torch.empty_like)


def _with_fixed_buffers(model: Any) -> Forward:
    """Return a traced module as a function that uses copies of the module's buffers.

    Without the copies, Inductor (2.13) returns wrong gradients if the graph also updates batch
    norm's running statistics (https://github.com/pytorch/pytorch/pull/197039).
    """
    buffers = {name: _snapshot(buffer) for name, buffer in model.named_buffers()}
    return lambda x: torch.func.functional_call(model, buffers, (x,))
