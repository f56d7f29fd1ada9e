"""PyTorch behind the seam: no algorithm, only how torch spells each operation.

Where `torch.compile` traces, values are not known and `torch.autograd.grad` is out of reach: there
`torch.func` takes the gradients, and loops run to their end over all examples, behind a mask.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from functools import partial
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.compiler import is_compiling

from deepdefense.errors import InputError
from deepdefense.seam.contract import Fold
from deepdefense.seam.validation import check_indices

__all__ = ["TorchSeam", "full_precision"]

# What dense layers consist of in autograd's graph. One backward pass for several classes makes
# one matrix product of theirs. Other operations may have no such form; convolutions and pooling, at
# 9 classes and 100 images, took 1.3 times as long as one class after the other, for copies of what
# was pooled.
DENSE = frozenset(
    f"{operation}Backward0"
    for operation in (
        *("Addmm", "Mm", "T", "View", "UnsafeView", "ReshapeAlias", "Unsqueeze", "Squeeze"),
        *("Relu", "Gelu", "Elu", "LeakyRelu", "Silu", "Softplus", "Hardtanh", "Tanh", "Sigmoid"),
        *("Add", "Sub", "Mul", "Div", "Neg"),
    )
) | {"torch::autograd::AccumulateGrad"}
GRADIENTS = 2**20  # the most numbers in gradients that are looked at together: 4 MiB in float32

State = TypeVar("State", bound=NamedTuple)
Fixed = TypeVar("Fixed", bound=NamedTuple)
Forward = Callable[[Tensor], Tensor]


def _rows(values: Any, rows: Tensor) -> Any:
    """The given rows of every tensor of a NamedTuple."""
    return values._make(value.index_select(0, rows) for value in values)


def _selected(mask: Tensor, new: Any, old: Any) -> Any:
    """The rows of one NamedTuple of tensors where the mask is set, else those of another."""
    return new._make(
        torch.where(mask.reshape(-1, *[1] * (b.ndim - 1)), a, b)
        for a, b in zip(new, old, strict=True)
    )


def _tracked(x: Tensor) -> Tensor:
    """X as a tensor whose gradient can be asked for, without touching the caller's."""
    if torch.is_grad_enabled() and x.requires_grad:
        return x
    return (x.clone() if x.is_inference() else x.detach()).requires_grad_()


def _recorded(
    f: Forward, x: Tensor, *, again: bool = False
) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """Logits with their graph, and the pull through it, which itself has one with `again`."""
    with torch.enable_grad():
        point = _tracked(x)
        logits = f(point)

    def pull(cotangent: Tensor) -> Tensor:
        if not logits.requires_grad:
            return torch.zeros_like(x)
        return torch.autograd.grad(
            logits, point, cotangent, create_graph=again, retain_graph=True, materialize_grads=True
        )[0]

    return logits, pull


def _dense(output: Tensor) -> bool:
    """Whether a tensor came to be by matrix products and elementwise functions alone."""
    nodes, seen = [output.grad_fn], set()
    while nodes:
        node = nodes.pop()
        if node is None or node in seen:
            continue
        if node.name() not in DENSE:
            return False
        seen.add(node)
        nodes += [earlier for earlier, _ in node.next_functions]
    return True


@contextmanager
def full_precision() -> Iterator[None]:
    """What runs inside is in the dtype of its tensors, whatever the user's autocast."""
    accelerator = "cuda" if torch.cuda.is_available() else "cpu"
    with torch.autocast("cpu", enabled=False), torch.autocast(accelerator, enabled=False):
        yield


@contextmanager
def _ieee() -> Iterator[None]:
    """No TensorFloat-32 in convolutions and matrix products inside; then as the user has it.

    PyTorch 2.9 has a second language for it, which overrules the first. Whoever reads the first is
    refused if the two disagree, so what can be said in both is.
    """
    cudnn: Any = torch.backends.cudnn
    # How each is said, what it was, and what it is inside.
    settings: list[tuple[Callable[[Any], None], Any, Any]] = []
    with suppress(RuntimeError):  # the user speaks the second
        settings.append((partial(setattr, cudnn, "allow_tf32"), cudnn.allow_tf32, False))
    with suppress(RuntimeError):
        precision = torch.get_float32_matmul_precision()
        settings.append((torch.set_float32_matmul_precision, precision, "highest"))
    if hasattr(cudnn, "conv"):
        for place in (cudnn.conv, cudnn.rnn, torch.backends.cuda.matmul):
            was = place.fp32_precision
            settings.append((partial(setattr, place, "fp32_precision"), was, "ieee"))
    try:
        for say, _, meant in settings:
            say(meant)
        yield
    finally:
        for say, was, _ in settings:
            say(was)


@torch.library.custom_op(
    "deepdefense::snapshot", mutates_args=(), schema="(Tensor value) -> Tensor"
)
def _snapshot(value: Tensor) -> Tensor:
    return value.clone()


_snapshot.register_fake(torch.empty_like)


def _undisturbed(model: Any) -> Forward:
    """A traced module whose buffers stay as they are now, until the backward pass is over.

    A graph that trains the module too overwrites the statistics of batch norm. Inductor (2.13)
    would compute them again in the backward pass, from what is overwritten already, and return
    wrong gradients (https://github.com/pytorch/pytorch/pull/197039); it keeps the results of an
    operation that it does not know.
    """
    buffers = {name: _snapshot(buffer) for name, buffer in model.named_buffers()}
    return lambda x: torch.func.functional_call(model, buffers, (x,))


class TorchSeam:
    """The seam in PyTorch."""

    name = "torch"
    xp: Any = torch

    def asarray(self, value: Any, like: Callable[[Tensor], Tensor] | Tensor) -> Tensor:
        if not isinstance(like, Tensor):
            parameters = like.parameters() if isinstance(like, torch.nn.Module) else iter(())
            first = next((p for p in parameters if p.is_floating_point()), None)
            if first is None:
                return torch.as_tensor(value)
            like = first
        placed = torch.as_tensor(value, device=like.device)
        return placed.to(like.dtype) if placed.is_floating_point() else placed

    def to_numpy(self, x: Tensor) -> np.ndarray:
        return np.array(x.detach().cpu().numpy())

    def is_concrete(self, x: Tensor) -> bool:
        return not is_compiling()

    def index(self, labels: Any, depth: int, like: Tensor) -> Tensor:
        index = torch.as_tensor(labels, device=like.device)
        whole = not (index.is_floating_point() or index.is_complex() or index.dtype == torch.bool)
        known = None if is_compiling() else index.detach().cpu().numpy()
        check_indices(whole, index.dtype, known, depth)
        return index.detach().long()

    def one_hot(self, index: Tensor, depth: int, like: Tensor) -> Tensor:
        # torch.nn.functional.one_hot looks at the values, for a check that `index` has made, and
        # has a GPU waited for.
        places = torch.arange(depth, device=index.device)
        return (index.unsqueeze(-1) == places).to(like.dtype)

    def take(self, values: Tensor, index: Tensor) -> Tensor:
        return values[torch.arange(len(index), device=index.device), index]

    def rank(self, scores: Tensor, count: int) -> Tensor:
        return torch.argsort(scores, dim=1, descending=True, stable=True)[:, :count]

    def euclidean(self, v: Tensor) -> Tensor:
        norms: Tensor = torch.linalg.vector_norm(v, dim=-1)
        return norms

    def epsilon(self, x: Tensor) -> float:
        if x.dtype not in (torch.float32, torch.float64):
            raise InputError(f"examples must be float32 or float64, got {x.dtype}: use x.float()")
        return torch.finfo(x.dtype).eps

    def stop_gradient(self, x: Tensor) -> Tensor:
        return x.detach()

    def precise(self) -> AbstractContextManager[None]:
        return _ieee()

    def forward(self, f: Forward, x: Tensor) -> Tensor:
        with torch.no_grad():
            return f(x)

    @contextmanager
    def inference(self, model: Callable[[Tensor], Tensor]) -> Iterator[Forward]:
        modules = list(model.modules()) if isinstance(model, torch.nn.Module) else []
        modes = [module.training for module in modules]
        devices = {tensor.device for module in modules[:1] for tensor in module.parameters()}
        gpus = [device for device in devices if device.type == "cuda"]
        compiling = is_compiling()
        with (
            # Neither can be traced. A model that draws random numbers in inference mode moves the
            # global state on when compiled; dropout does not.
            nullcontext() if compiling else torch.inference_mode(False),
            nullcontext() if compiling else torch.random.fork_rng(devices=gpus),
            full_precision(),
        ):
            try:
                for module in modules:
                    module.training = False
                keras = sys.modules.get("keras")
                if keras and isinstance(model, keras.Layer):
                    from deepdefense_keras.models import inferring

                    with inferring(model) as f:
                        yield f
                else:
                    yield _undisturbed(model) if compiling and any(modes) else model
            finally:
                for module, mode in zip(modules, modes, strict=True):
                    module.training = mode

    def compiled(self, f: Forward) -> Forward:
        return f

    def class_gradients(self, f: Forward, x: Tensor) -> tuple[Tensor, Fold]:
        x, tracing = x.detach(), is_compiling()
        if tracing:
            with torch.no_grad():
                logits, pull = self.vjp(f, x)
        else:
            logits, pull = _recorded(f, x)

        def fold(step: Callable[..., Any], state: Any, contrasts: Tensor) -> Any:
            n = contrasts.shape[1]
            # Traced, each step is one more copy to compile: one must do.
            at_once = n if tracing else min(n, max(1, GRADIENTS // max(1, x.numel())))
            batched = at_once > 1 and not tracing and _dense(logits)
            for some in torch.split(contrasts, at_once, 1):
                if batched:
                    gradients = torch.func.vmap(pull, 1, 1)(some)
                else:
                    gradients = torch.stack([pull(one) for one in some.unbind(1)], 1)
                state = step(state, some, gradients)
            return state

        return logits.detach(), fold

    def vjp(
        self, f: Forward, x: Tensor, *, twice: bool = True
    ) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        recording = torch.is_grad_enabled()
        if is_compiling():
            values, gradient, *_ = torch.func.vjp(f, x)  # two parts; typed as if there were three

            def traced_pull(cotangent: Tensor) -> Tensor:
                pulled: Tensor = gradient(cotangent)[0]
                return pulled if recording and twice else pulled.detach()

            return values, traced_pull

        logits, pull = _recorded(f, x, again=recording and twice)
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
                if is_compiling():  # whether none is left is not known, nor how many are
                    new, going = body(state, fixed)
                    state, active = _selected(active, new, state), active & going
                    continue
                rows = active.nonzero()[:, 0]
                if len(rows) == 0:
                    break
                if len(rows) == len(active):
                    state, active = body(state, fixed)
                    continue
                part, going = body(_rows(state, rows), _rows(fixed, rows))
                state = state._make(
                    old.index_copy(0, rows, new) for old, new in zip(state, part, strict=True)
                )
                active = active.index_copy(0, rows, going)
        return state

    def softmax_cross_entropy(self, logits: Tensor, labels: Tensor) -> Tensor:
        return torch.nn.functional.cross_entropy(logits, labels, reduction="none")
