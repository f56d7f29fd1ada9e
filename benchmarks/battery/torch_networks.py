"""The networks of the battery in PyTorch, of the kinds that users write."""

from __future__ import annotations

from torch import nn

__all__ = [
    "make_cnn",
    "make_cnn_bn",
    "make_deep_cnn_bn",
    "make_gelu_cnn",
    "make_gelu_mlp",
    "make_mlp",
]


def make_mlp(inputs: int, classes: int, width: int = 32, dropout: float = 0.0) -> nn.Module:
    """Return a network of two hidden layers with ReLU, each followed by dropout if it is not 0."""
    layers: list[nn.Module] = [nn.Flatten()]
    for size in (inputs, width):
        layers += [nn.Linear(size, width), nn.ReLU()]
        layers += [nn.Dropout(dropout)] * bool(dropout)
    return nn.Sequential(*layers, nn.Linear(width, classes))


def make_gelu_mlp(inputs: int, classes: int, width: int = 64) -> nn.Module:
    """Return a network of two hidden layers with layer norm and GELU."""
    layers: list[nn.Module] = [nn.Flatten()]
    for size in (inputs, width):
        layers += [nn.Linear(size, width), nn.LayerNorm(width), nn.GELU()]
    return nn.Sequential(*layers, nn.Linear(width, classes))


def make_cnn(channels: int, side: int, classes: int, width: int = 16) -> nn.Module:
    """Return a network of two convolutions with ReLU and pooling, and two linear layers."""
    return nn.Sequential(
        *(nn.Conv2d(channels, width, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(width, 2 * width, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(2 * width * (side // 4) ** 2, 64), nn.ReLU()),
        nn.Linear(64, classes),
    )


def make_cnn_bn(channels: int, side: int, classes: int, width: int = 16) -> nn.Module:
    """Return a network of two convolutions, of which the first has batch norm."""
    return nn.Sequential(
        *(nn.Conv2d(channels, width, 3, padding=1), nn.BatchNorm2d(width)),
        *(nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(width, 2 * width, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(2 * width * (side // 4) ** 2, 64), nn.ReLU()),
        nn.Linear(64, classes),
    )


def make_deep_cnn_bn(channels: int, classes: int, width: int = 16) -> nn.Module:
    """Return a network of three convolutions with batch norm, for images of any size."""
    layers: list[nn.Module] = []
    for inputs, outputs, stride in ((channels, width, 1), (width, width, 2), (width, 2 * width, 2)):
        layers += [
            nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
        ]
    return nn.Sequential(
        *layers, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(8 * width, classes)
    )


def make_gelu_cnn(channels: int, side: int, classes: int, width: int = 16) -> nn.Module:
    """Return a network of two strided convolutions with group norm (one group) and GELU."""
    layers: list[nn.Module] = []
    for inputs, outputs in ((channels, width), (width, 2 * width)):
        layers += [
            nn.Conv2d(inputs, outputs, 4, stride=2, padding=1),
            nn.GroupNorm(1, outputs),
            nn.GELU(),
        ]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(2 * width * (side // 4) ** 2, classes))
