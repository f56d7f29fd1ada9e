"""Make the networks and images that the benchmarks measure."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.training import train_network
from deepdefense.app.run_folder import load_weights
from deepdefense.defenses.objective import Objective
from deepdefense.evaluation.dataset import Dataset
from deepdefense.seam.training_contract import training_backend
from deepdefense.training.recipe import Recipe
from deepdefense.zoo import NETWORKS, initial_weights

__all__ = [
    "BATCH",
    "CLASSES",
    "LARGE",
    "Subject",
    "load_or_train",
    "make_large_subject",
    "make_resnet18",
    "make_zoo_subject",
    "take_unit_interval",
]

EPOCHS = 3  # of plain training on MNIST, if no weights are given
BATCH = 100
# The sizes for ResNet-18's layers on a CPU. Images and batch are small, because the exact penalty
# computes 9 gradients for each example in each step.
CLASSES, SIDE, LARGE_BATCH = 1000, 64, 16
LARGE = f"resnet18-shaped, {CLASSES} classes"
Subject = tuple[nn.Module, Tensor, Tensor]  # a network, images and their labels


def load_or_train(kind: str, data: Dataset, weights: Path | None) -> Mapping[str, np.ndarray]:
    """Load the weights from a file, or train a network of this kind if no file is given.

    Initial weights would distort the measurement: the number of DeepFool's steps, and so its cost,
    depends on the decision boundaries.
    """
    if weights is not None:
        return load_weights(weights)
    backend, recipe = training_backend("torch"), Recipe(epochs=EPOCHS, lr=1e-3)
    network = NETWORKS[kind](data.x_train.shape[1:], data.classes)
    start = initial_weights(network, 0, float(data.x_train.std()))
    model = train_network(
        backend,
        backend.build(network, start),
        data.x_train,
        data.y_train,
        recipe=recipe,
        objective=Objective(),
    )
    return backend.weights(model)


def make_zoo_subject(kind: str, weights: Mapping[str, np.ndarray], data: Dataset) -> Subject:
    """Return a network of the zoo with these weights, and a batch of training images and labels."""
    network = NETWORKS[kind](data.x_train.shape[1:], data.classes)
    model = training_backend("torch").build(network, weights)
    return model, torch.tensor(data.x_train[:BATCH]), torch.tensor(data.y_train[:BATCH])


def make_large_subject() -> Subject:
    """Return a network with ResNet-18's layers, noise images, and its predictions as labels."""
    x = torch.randn(LARGE_BATCH, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    model = make_resnet18(CLASSES, x)
    with torch.no_grad():
        return model, x, model.eval()(x).argmax(1)


def take_unit_interval(model: nn.Module, data: Dataset) -> nn.Module:
    """Return a model that accepts pixels in [0, 1], and scales and centres them for `model`.

    Some of the other libraries require this range.
    """

    class UnitInterval(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model
            self.register_buffer("mean", torch.tensor(data.mean))

        def forward(self, x: Tensor) -> Any:
            return self.model(x * data.scale - self.mean)

    return UnitInterval().eval()


class _Block(nn.Module):
    """A residual block: two convolutions with batch norm, and a shortcut (He et al., 2016)."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
            nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False),
            nn.BatchNorm2d(outputs),
        )
        same = inputs == outputs and stride == 1
        shortcut = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
        self.shortcut = nn.Identity() if same else nn.Sequential(shortcut, nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.body(x) + self.shortcut(x))


def make_resnet18(classes: int, x: Tensor) -> nn.Module:
    """Return a network with ResNet-18's layers and initial weights, to measure cost.

    The running statistics of batch norm are those of `x`. The predictions are not meaningful.
    """
    torch.manual_seed(0)
    widths = [(64, 64, 1), (64, 128, 2), (128, 256, 2), (256, 512, 2)]
    blocks = [
        block
        for inputs, outputs, stride in widths
        for block in (_Block(inputs, outputs, stride), _Block(outputs, outputs, 1))
    ]
    stem = [nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU()]
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, classes)]
    model = nn.Sequential(*stem, nn.MaxPool2d(3, 2, 1), *blocks, *head)
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.momentum = None  # a cumulative mean; all batches are `x`, so it stays the same
    with torch.no_grad():
        model(x)
    return model.to(memory_format=torch.channels_last)
