"""A PyTorch network in training mode, and a batch for it."""

from __future__ import annotations

import pytest

import deepdefense as dd

torch = pytest.importorskip("torch", reason="PyTorch is not installed")
from torch import nn  # noqa: E402 - after the check that there is a torch

DEFENSES = [
    pytest.param(dd.DeepDefense(), id="unrolled"),
    pytest.param(dd.DeepDefense(gradient="implicit"), id="implicit"),
    pytest.param(dd.DeepDefense.fast(), id="fast"),
]


def build_network() -> nn.Module:
    """Build a network with convolution, dropout, and batch norm in evaluation mode."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(2, 4, 3),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Dropout(0.5),
        nn.Flatten(),
        nn.Linear(16, 5),
    )
    model(torch.randn(8, 2, 6, 6))  # moves the statistics from their initial values
    model[1].eval()
    return model


def draw_batch() -> tuple[torch.Tensor, torch.Tensor]:
    """Draw six examples and labels for the network."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(6, 2, 6, 6, generator=generator)
    return x, torch.randint(0, 5, (6,), generator=generator)
