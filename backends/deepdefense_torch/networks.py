"""Build networks of the zoo as PyTorch modules.

Networks that torchvision also has use torchvision's names of weights.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator

from torch import Tensor, nn

from deepdefense.zoo import (
    AdaptiveAveragePool,
    AveragePool,
    BatchNorm,
    Block,
    Conv,
    Dropout,
    Flatten,
    Layer,
    Linear,
    MaxPool,
    ReLU,
    Residual,
)

__all__ = ["ResidualBlock", "build_chain"]


def build_chain(layers: Iterable[Layer]) -> nn.Sequential:
    """Return a module that applies the layers one after another.

    A submodule has the name of its layer, or its index in `layers` if the layer has no name.
    """
    return nn.Sequential(OrderedDict(_name_modules(layers)))


def _name_modules(layers: Iterable[Layer]) -> Iterator[tuple[str, nn.Module]]:
    for i, layer in enumerate(layers):
        yield getattr(layer, "name", str(i)), _build_module(layer)


def _build_module(layer: Layer) -> nn.Module:
    match layer:
        case Conv(_, inputs, outputs, size, padding, stride, bias):
            return nn.Conv2d(inputs, outputs, size, stride, padding, bias=bias)
        case Linear(_, inputs, outputs):
            return nn.Linear(inputs, outputs)
        case BatchNorm(_, features, eps, momentum):
            return _BatchNorm(features, eps, momentum)
        case Dropout(rate):
            return nn.Dropout(rate)
        case MaxPool(size, _, padding):
            return nn.MaxPool2d(size, layer.step, padding)
        case AveragePool(size, _, padding):
            return nn.AvgPool2d(size, layer.step, padding)
        case AdaptiveAveragePool(size):
            return nn.AdaptiveAvgPool2d(size)
        case ReLU():
            return nn.ReLU()
        case Flatten():
            return nn.Flatten()
        case Block(_, layers):
            return build_chain(layers)
        case Residual():
            return ResidualBlock(layer)


class _BatchNorm(nn.BatchNorm2d):
    """Batch norm for images [b c h w] and for vectors [b c].

    PyTorch has one class for each, and the two differ only in their checks of the input's shape.
    """

    def _check_input_dim(self, input: Tensor) -> None:
        if input.dim() < 2:
            raise ValueError(f"batch norm takes [b c ...], got {list(input.shape)}")


class ResidualBlock(nn.Module):
    """The zoo's `Residual` as a module: max(body(x) + shortcut(x), 0)."""

    def __init__(self, block: Residual) -> None:
        super().__init__()
        for name, module in _name_modules((*block.body, *block.shortcut)):
            self.add_module(name, module)
        self._length = len(block.body)

    def forward(self, x: Tensor) -> Tensor:
        children = list(self.children())
        body = shortcut = x
        for module in children[: self._length]:
            body = module(body)
        for module in children[self._length :]:
            shortcut = module(shortcut)
        return nn.functional.relu(body + shortcut)
