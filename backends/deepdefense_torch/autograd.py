"""Compute gradients by PyTorch's autograd, and find the operations in a recorded graph."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["is_dense", "record"]

# Names of autograd's graph nodes for dense layers and elementwise operations. For a graph of these
# nodes, one batched backward pass for several classes is faster than one pass for each class. Other
# operations may have no batched backward pass, or a slower one.
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
    """Return logits f(x) with their graph, and a function from cotangents to gradients.

    The function maps a cotangent [b k] to gradients [b d], differentiable if `twice`.
    """
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
    """Return `x` if autograd tracks it, else a tensor of the same values with `requires_grad`."""
    if torch.is_grad_enabled() and x.requires_grad:
        return x
    return (x.clone() if x.is_inference() else x.detach()).requires_grad_()


def is_dense(output: Tensor) -> bool:
    """Return whether the graph of `output` has only nodes listed in `DENSE`."""
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
