"""The operations of the contract in PyTorch, which work eagerly and under `torch.compile`.

While `torch.compile` traces, `torch.func` computes the gradients, and loops run all their steps on
all examples and mask the inactive examples.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.compiler import is_compiling

from deepdefense.seam.contract import Backend, Fixed, Fold, State
from deepdefense.seam.validation import check_indices
from deepdefense_torch.autograd import is_dense, record
from deepdefense_torch.modules import Forward, open_inference
from deepdefense_torch.precision import without_tf32

__all__ = ["TorchOperations"]

# `class_gradients` splits the contrasts into chunks. The gradients of one chunk have at most this
# many entries (4 MiB in float32), unless a single contrast has more.
MAX_CHUNK = 2**20


class TorchOperations(Backend):
    """The operations of the contract (`deepdefense.seam.contract.Backend`) in PyTorch."""

    name = "torch"
    xp: Any = torch
    cast_hint = "x.float()"

    def asarray(self, value: Any, like: Forward | Tensor) -> Tensor:
        if not isinstance(like, Tensor):
            parameters = like.parameters() if isinstance(like, torch.nn.Module) else iter(())
            first = next((p for p in parameters if p.is_floating_point()), None)
            if first is None:
                return torch.as_tensor(value)
            like = first
        tensor = torch.as_tensor(value, device=like.device)
        return tensor.to(like.dtype) if tensor.is_floating_point() else tensor

    def to_numpy(self, x: Tensor) -> np.ndarray:
        return np.array(x.detach().cpu().numpy())

    def is_concrete(self, x: Tensor) -> bool:
        return not is_compiling()

    def index(self, labels: Any, depth: int, like: Tensor) -> Tensor:
        index = torch.as_tensor(labels, device=like.device)
        integer = not (index.is_floating_point() or index.is_complex() or index.dtype == torch.bool)
        values = None if is_compiling() else index.detach().cpu().numpy()
        check_indices(integer, index.dtype, values, depth)
        return index.detach().long()

    def one_hot(self, index: Tensor, depth: int, like: Tensor) -> Tensor:
        # torch.nn.functional.one_hot would wait for the GPU, to check the labels once more.
        classes = torch.arange(depth, device=index.device)
        return (index.unsqueeze(-1) == classes).to(like.dtype)

    def take(self, values: Tensor, index: Tensor) -> Tensor:
        return values[torch.arange(len(index), device=index.device), index]

    def rank(self, scores: Tensor, count: int) -> Tensor:
        return torch.argsort(scores, dim=1, descending=True, stable=True)[:, :count]

    def euclidean(self, v: Tensor) -> Tensor:
        norms: Tensor = torch.linalg.vector_norm(v, dim=-1)
        return norms

    def stop_gradient(self, x: Tensor) -> Tensor:
        return x.detach()

    def precise(self) -> AbstractContextManager[None]:
        return without_tf32()

    def inference(self, model: Forward) -> AbstractContextManager[Forward]:
        return open_inference(model)

    def forward(self, f: Forward, x: Tensor) -> Tensor:
        with torch.no_grad():
            return f(x)

    def class_gradients(self, f: Forward, x: Tensor) -> tuple[Tensor, Fold]:
        x, tracing = x.detach(), is_compiling()
        if tracing:
            with torch.no_grad():
                logits, pull = self.vjp(f, x)
        else:
            logits, pull = record(f, x)

        def fold(step: Callable[..., Any], state: Any, contrasts: Tensor) -> Any:
            n = contrasts.shape[1]
            # While tracing, use one chunk, since the compiler would compile `step` for each chunk.
            size = n if tracing else min(n, max(1, MAX_CHUNK // max(1, x.numel())))
            batched = size > 1 and not tracing and is_dense(logits)
            for chunk in torch.split(contrasts, size, 1):
                if batched:
                    gradients = torch.func.vmap(pull, 1, 1)(chunk)
                else:
                    gradients = torch.stack([pull(contrast) for contrast in chunk.unbind(1)], 1)
                state = step(state, chunk, gradients)
            return state

        return logits.detach(), fold

    def vjp(self, f: Forward, x: Tensor, *, twice: bool = True) -> tuple[Tensor, Forward]:
        recording = torch.is_grad_enabled()
        if is_compiling():
            # `torch.func.vjp` returns two values here, but is annotated to return two or three.
            values, gradient, *_ = torch.func.vjp(f, x)

            def traced_pull(cotangent: Tensor) -> Tensor:
                pulled: Tensor = gradient(cotangent)[0]
                return pulled if recording and twice else pulled.detach()

            return values, traced_pull

        logits, pull = record(f, x, twice=recording and twice)
        return (logits if recording else logits.detach()), pull

    def iterate(
        self,
        body: Callable[[State, Fixed], tuple[State, Tensor]],
        state: State,
        fixed: Fixed,
        active: Tensor,
        *,
        steps: int,
        differentiable: bool = False,
    ) -> State:
        with torch.set_grad_enabled(differentiable and torch.is_grad_enabled()):
            for _ in range(steps):
                if is_compiling():  # the compiler does not know the number of active examples
                    state, active = self.step_active(body, state, fixed, active)
                    continue
                rows = active.nonzero()[:, 0]
                if len(rows) == 0:
                    break
                if len(rows) == len(active):
                    state, active = body(state, fixed)
                    continue
                new, going = body(_select_rows(state, rows), _select_rows(fixed, rows))
                state = state._make(
                    old.index_copy(0, rows, part) for old, part in zip(state, new, strict=True)
                )
                active = active.index_copy(0, rows, going)
        return state

    def softmax_cross_entropy(self, logits: Tensor, labels: Tensor) -> Tensor:
        return torch.nn.functional.cross_entropy(logits, labels, reduction="none")


def _select_rows(values: Any, rows: Tensor) -> Any:
    """Return the NamedTuple `values` with only the given rows of each tensor."""
    return values._make(value.index_select(0, rows) for value in values)
