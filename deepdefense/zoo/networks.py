"""The network architectures that `deepdefense.build` and the command line offer by name."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from itertools import pairwise

from deepdefense.errors import InputError
from deepdefense.zoo.layers import (
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
    Network,
    ReLU,
    Residual,
)

__all__ = ["NETWORKS"]


def _check_image_size(name: str, input_shape: tuple[int, ...], least: int) -> None:
    """Raise `InputError` unless `input_shape` is [c h w] with h and w not less than `least`."""
    if len(input_shape) != 3 or min(input_shape[1:]) < least:
        raise InputError(
            f"network {name} takes images [c h w] of {least} x {least} pixels or more, "
            f"got {list(input_shape)}"
        )


def mlp(
    input_shape: tuple[int, ...], classes: int, hidden: tuple[int, ...] = (500, 150)
) -> Network:
    """Return the paper's fully connected network, d-500-150-k with ReLU.

    The network accepts examples of any shape and flattens each to d numbers. k is the number of
    classes.

    Source: Yan, Guo and Zhang (2018), section 4.1.
    """
    sizes = (math.prod(input_shape), *hidden, classes)
    layers: list[Layer] = [Flatten()]
    for i, (inputs, outputs) in enumerate(pairwise(sizes), start=1):
        layers += [Linear(f"fc{i}", inputs, outputs), ReLU()]
    return Network("mlp", input_shape, classes, tuple(layers[:-1]))


def bn_mlp(
    input_shape: tuple[int, ...], classes: int, hidden: tuple[int, ...] = (500, 150)
) -> Network:
    """Return the fully connected network of `mlp`, with batch norm added before each ReLU.

    Source: Ioffe and Szegedy (2015).
    """
    sizes = (math.prod(input_shape), *hidden)
    layers: list[Layer] = [Flatten()]
    for i, (inputs, outputs) in enumerate(pairwise(sizes), start=1):
        layers += [Linear(f"fc{i}", inputs, outputs), BatchNorm(f"bn{i}", outputs), ReLU()]
    layers += [Linear(f"fc{len(sizes)}", sizes[-1], classes)]
    return Network("bn-mlp", input_shape, classes, tuple(layers), spread="fan-in")


def lenet(input_shape: tuple[int, ...], classes: int) -> Network:
    """Return MatConvNet's LeNet, which has no ReLU after the convolutions.

    The network accepts images of 16 x 16 pixels or more.

    Source: LeCun et al. (1998); the variant of Moosavi-Dezfooli et al. (2016).
    """
    _check_image_size("lenet", input_shape, least=16)
    channels, height, width = input_shape
    features = 50 * (((height - 4) // 2 - 4) // 2) * (((width - 4) // 2 - 4) // 2)
    layers = (
        Conv("conv1", channels, 20, 5),
        MaxPool(),
        Conv("conv2", 20, 50, 5),
        MaxPool(),
        Flatten(),
        Linear("fc1", features, 500),
        ReLU(),
        Linear("fc2", 500, classes),
    )
    return Network("lenet", input_shape, classes, layers)


def convnet(input_shape: tuple[int, ...], classes: int) -> Network:
    """Return the paper's ConvNet, which is MatConvNet's network for CIFAR-10.

    Three convolutions with pooling are followed by two convolutions that act as fully connected
    layers, because the kernel of the fourth is as large as its whole input. Images must be square,
    32 x 32 pixels or more.

    Source: Yan, Guo and Zhang (2018), section 4.2.
    """
    if len(input_shape) != 3 or min(input_shape[1:]) < 32 or len(set(input_shape[1:])) > 1:
        raise InputError(
            "network convnet takes square images [c h h] of 32 x 32 pixels or more, "
            f"got {list(input_shape)}"
        )
    layers = (
        Conv("conv1", input_shape[0], 32, 5, padding=2),
        MaxPool(),
        ReLU(),
        Conv("conv2", 32, 32, 5, padding=2),
        ReLU(),
        AveragePool(),
        Conv("conv3", 32, 64, 5, padding=2),
        ReLU(),
        AveragePool(),
        Conv("conv4", 64, 64, input_shape[1] // 2 // 2 // 2),
        ReLU(),
        Conv("conv5", 64, classes, 1),
        Flatten(),
    )
    return Network("convnet", input_shape, classes, layers)


def nin(input_shape: tuple[int, ...], classes: int) -> Network:
    """Return the Network in Network for CIFAR-10.

    Each logit is the mean of a feature map of the last convolution. The network accepts images of
    4 x 4 pixels or more.

    Source: Lin, Chen and Yan (2014), as Yan, Guo and Zhang (2018) train it, section 4.2.
    """
    _check_image_size("nin", input_shape, least=4)
    layers = (
        Conv("conv1", input_shape[0], 192, 5, padding=2),
        ReLU(),
        Conv("conv2", 192, 160, 1),
        ReLU(),
        Conv("conv3", 160, 96, 1),
        ReLU(),
        MaxPool(),
        Dropout(),
        Conv("conv4", 96, 192, 5, padding=2),
        ReLU(),
        Conv("conv5", 192, 192, 1),
        ReLU(),
        Conv("conv6", 192, 192, 1),
        ReLU(),
        AveragePool(),
        Dropout(),
        Conv("conv7", 192, 192, 3, padding=1),
        ReLU(),
        Conv("conv8", 192, 192, 1),
        ReLU(),
        Conv("conv9", 192, classes, 1),
        AdaptiveAveragePool(),
        Flatten(),
    )
    return Network("nin", input_shape, classes, layers, spread="balanced")


def alexnet(input_shape: tuple[int, ...], classes: int, hidden: int = 4096) -> Network:
    """Return torchvision's AlexNet: five convolutions and three fully connected layers.

    The names and shapes of its weights are those of torchvision's state dict, so torchvision's
    pretrained weights for images [3 224 224] can be loaded. The network accepts images of 63 x 63
    pixels or more.

    Source: Krizhevsky (2014), the one-GPU variant of Krizhevsky, Sutskever and Hinton (2012).
    """
    _check_image_size("alexnet", input_shape, least=63)
    features = (
        Conv("0", input_shape[0], 64, 11, padding=2, stride=4),
        ReLU(),
        MaxPool(3, stride=2),
        Conv("3", 64, 192, 5, padding=2),
        ReLU(),
        MaxPool(3, stride=2),
        Conv("6", 192, 384, 3, padding=1),
        ReLU(),
        Conv("8", 384, 256, 3, padding=1),
        ReLU(),
        Conv("10", 256, 256, 3, padding=1),
        ReLU(),
        MaxPool(3, stride=2),
    )
    classifier = (
        Dropout(),
        Linear("1", 256 * 6 * 6, hidden),
        ReLU(),
        Dropout(),
        Linear("4", hidden, hidden),
        ReLU(),
        Linear("6", hidden, classes),
    )
    layers = (
        Block("features", features),
        AdaptiveAveragePool(6),
        Flatten(),
        Block("classifier", classifier),
    )
    return Network("alexnet", input_shape, classes, layers, spread="balanced")


def resnet18(input_shape: tuple[int, ...], classes: int) -> Network:
    """Return torchvision's ResNet-18: eight residual blocks of two convolutions each.

    The names and shapes of its weights are those of torchvision's state dict, so torchvision's
    pretrained weights for images [3 224 224] can be loaded. The network accepts images of any size.

    Source: He et al. (2016).
    """
    _check_image_size("resnet18", input_shape, least=1)
    layers: list[Layer] = [
        Conv("conv1", input_shape[0], 64, 7, padding=3, stride=2, bias=False),
        BatchNorm("bn1", 64),
        ReLU(),
        MaxPool(3, stride=2, padding=1),
    ]
    for i, (inputs, outputs) in enumerate(pairwise((64, 64, 128, 256, 512)), start=1):
        blocks = (_make_basic_block("0", inputs, outputs), _make_basic_block("1", outputs, outputs))
        layers.append(Block(f"layer{i}", blocks))
    layers += [AdaptiveAveragePool(), Flatten(), Linear("fc", 512, classes)]
    return Network("resnet18", input_shape, classes, tuple(layers), spread="fan-in")


def _make_basic_block(name: str, inputs: int, outputs: int) -> Residual:
    """Return a residual block of two 3 x 3 convolutions.

    If `outputs` differs from `inputs`, the block halves the height and width of its input. The
    shortcut is then a 1 x 1 convolution with stride 2, followed by batch norm.
    """
    stride = 1 if inputs == outputs else 2
    projection = (
        Conv("0", inputs, outputs, 1, stride=stride, bias=False),
        BatchNorm("1", outputs),
    )
    body = (
        Conv("conv1", inputs, outputs, 3, padding=1, stride=stride, bias=False),
        BatchNorm("bn1", outputs),
        ReLU(),
        Conv("conv2", outputs, outputs, 3, padding=1, bias=False),
        BatchNorm("bn2", outputs),
    )
    return Residual(name, body, () if stride == 1 else (Block("downsample", projection),))


NETWORKS: Mapping[str, Callable[[tuple[int, ...], int], Network]] = {
    "mlp": mlp,
    "bn-mlp": bn_mlp,
    "lenet": lenet,
    "convnet": convnet,
    "nin": nin,
    "alexnet": alexnet,
    "resnet18": resnet18,
}
