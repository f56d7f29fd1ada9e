"""One small network in every framework: what a backend is tested on.

A test body takes a `Subject` and says nothing of the framework. Its networks are the oracle's,
whose forward pass and gradients are written out by hand.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import numpy as np

from deepdefense.backend import Backend, get_backend
from deepdefense_numpy.networks import TinyNetwork, activate

# One place for tolerances, each with the largest error seen over the property tests beside it.
AUTODIFF = 1e-9  # float64, autodiff against analytic: 2e-15
DIFFERENCE = 1e-6  # float64, values that rest on one finite difference: 3e-10
NESTED = 1e-5  # float64, a derivative of such values by another finite difference: 4e-7
SINGLE = 1e-4  # float32, perturbations: 3e-6


class Subject(ABC):
    """How a test speaks to one framework."""

    name: str
    activations: tuple[str, ...] = ("tanh", "softplus", "relu", "identity")

    @property
    def backend(self) -> Backend:
        return get_backend(self.name)

    exactness: float  # of this backend's input gradients, in float64
    autodiff = True  # whether `slope` differentiates; else it only compares values

    @abstractmethod
    def model(self, network: TinyNetwork) -> Any:
        """The network as a native model, in float64."""

    @abstractmethod
    def array(self, value: np.ndarray) -> Any:
        """A native array of the same dtype."""

    @abstractmethod
    def slope(
        self, network: TinyNetwork, value: Callable[[Any], Any], direction: np.ndarray
    ) -> float:
        """The derivative of a scalar function of the model along a direction of parameters."""


def batched(network: TinyNetwork) -> Callable[[np.ndarray], np.ndarray]:
    """The oracle's network over a whole batch at once."""

    def logits(x: np.ndarray) -> np.ndarray:
        rows = x.reshape(len(x), network.weights[0].shape[1])
        last = len(network.weights) - 1
        for i, (weight, bias) in enumerate(zip(network.weights, network.biases, strict=True)):
            rows = rows @ weight.astype(x.dtype).T + bias.astype(x.dtype)
            rows = rows if i == last else activate(rows, network.activation)
        return rows

    return logits


def derivative(value: Callable[[float], float], h: float = 3e-5) -> float:
    """value'(0) by central differences of fourth order."""
    near, far = (value(h) - value(-h)), (value(2 * h) - value(-2 * h))
    return (8 * near - far) / (12 * h)


class NumpySubject(Subject):
    name = "numpy"
    activations = ("tanh", "softplus", "identity")  # a difference across a kink is no derivative
    exactness = DIFFERENCE
    autodiff = False

    def model(self, network: TinyNetwork) -> Any:
        return batched(network)

    def array(self, value: np.ndarray) -> Any:
        return np.asarray(value)

    def slope(
        self, network: TinyNetwork, value: Callable[[Any], Any], direction: np.ndarray
    ) -> float:
        start = network.parameters()
        return derivative(
            lambda t: float(value(batched(network.with_parameters(start + t * direction))))
        )


class TorchSubject(Subject):
    name = "torch"
    exactness = AUTODIFF

    def model(self, network: TinyNetwork) -> Any:
        import torch
        from torch import nn

        kinds = {
            "tanh": nn.Tanh,
            "relu": nn.ReLU,
            "softplus": lambda: nn.Softplus(threshold=700),  # exact: exp(700) is finite
            "identity": nn.Identity,
        }
        layers: list[nn.Module] = [nn.Flatten()]
        for weight, bias in zip(network.weights, network.biases, strict=True):
            linear = nn.Linear(weight.shape[1], weight.shape[0], dtype=torch.float64)
            with torch.no_grad():
                linear.weight.copy_(torch.as_tensor(weight))
                linear.bias.copy_(torch.as_tensor(bias))
            layers += [linear, kinds[network.activation]()]
        return nn.Sequential(*layers[:-1])

    def array(self, value: np.ndarray) -> Any:
        import torch

        return torch.as_tensor(np.array(value))

    def slope(
        self, network: TinyNetwork, value: Callable[[Any], Any], direction: np.ndarray
    ) -> float:
        import torch

        model = self.model(network)
        gradients = torch.autograd.grad(
            value(model), list(model.parameters()), materialize_grads=True, allow_unused=True
        )
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        return float(flat @ torch.as_tensor(direction))


SUBJECTS: dict[str, Subject] = {s.name: s for s in (NumpySubject(), TorchSubject())}
