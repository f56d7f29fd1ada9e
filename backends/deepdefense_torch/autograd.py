"""PyTorch's autograd: gradients through a recorded graph, and what such a graph consists of."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["is_dense", "record"]

# The operations of dense layers in autograd's graph. For these, one backward pass for several
# classes is one matrix product. Other operations may have no batched backward pass, and that of
# convolutions and pooling is slower than one pass for each class, since it copies their inputs.
DENSE = frozenset(
    f"{operation}Backward0"
    for operation in (
        *("Addmm", "Mm", "T", "View", "UnsafeView", "ReshapeAlias", "Unsqueeze", "Squeeze"),
        *("Relu", "Gelu", "Elu", "LeakyRelu", "Silu", "Softplus", "Hardtanh", "Tanh", "Sigmoid"),
        *("Add", "Sub", "Mul", "Div", "Neg"),
    )
) | {"torch::autograd::AccumulateGrad"}


def record(
    f: Callable[[Tensor], Tensor], x: Tensor, *, twice: bool = False
) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """Return logits with their graph, and the pull through it, differentiable if `twice`."""
    with torch.enable_grad():
        point = _tracked(x)
        logits = f(point)

    def pull(cotangent: Tensor) -> Tensor:
        if not logits.requires_grad:
            return torch.zeros_like(x)
        return torch.autograd.grad(
            logits, point, cotangent, create_graph=twice, retain_graph=True, materialize_grads=True
        )[0]

    return logits, pull


def _tracked(x: Tensor) -> Tensor:
    """Return `x` as a tensor that autograd tracks, without changing the caller's tensor."""
    if torch.is_grad_enabled() and x.requires_grad:
        return x
    return (x.clone() if x.is_inference() else x.detach()).requires_grad_()


def is_dense(output: Tensor) -> bool:
    """Return whether matrix products and elementwise functions alone computed a tensor."""
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
