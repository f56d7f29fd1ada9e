"""Network architectures described as data, from which each backend builds a native model.

In every framework, the weights have PyTorch's names and layout, for example ``conv1.weight``
[out in h w] and ``fc1.weight`` [out in].
"""

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
from deepdefense.zoo.networks import NETWORKS, alexnet, bn_mlp, convnet, lenet, mlp, nin, resnet18
from deepdefense.zoo.weights import COUNTER, initial_weights, is_statistic, weight_shapes

__all__ = [
    "COUNTER",
    "NETWORKS",
    "AdaptiveAveragePool",
    "AveragePool",
    "BatchNorm",
    "Block",
    "Conv",
    "Dropout",
    "Flatten",
    "Layer",
    "Linear",
    "MaxPool",
    "Network",
    "ReLU",
    "Residual",
    "alexnet",
    "bn_mlp",
    "convnet",
    "initial_weights",
    "is_statistic",
    "lenet",
    "mlp",
    "nin",
    "resnet18",
    "weight_shapes",
]
