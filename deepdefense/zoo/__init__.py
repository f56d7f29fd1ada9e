"""Networks described once, as data; each backend builds its own native model from a description.

Weights carry the names and the layout of the PyTorch model (``conv1.weight`` [out in h w],
``fc1.weight`` [out in]), whichever framework holds them.
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
