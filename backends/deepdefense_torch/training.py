"""What training needs natively in PyTorch: building, weights, and one SGD step."""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from deepdefense.training import Losses, Recipe
from deepdefense.zoo import AveragePool, Conv, Flatten, Layer, Linear, MaxPool, Network, ReLU

__all__ = ["TorchTraining"]

Arrays = Mapping[str, npt.NDArray[Any]]
LossFunction = Callable[[Any, Any, Tensor, Any], Losses]


def _module(layer: Layer) -> nn.Module:
    match layer:
        case Conv(_, inputs, outputs, size, padding):
            return nn.Conv2d(inputs, outputs, size, padding=padding)
        case Linear(_, inputs, outputs):
            return nn.Linear(inputs, outputs)
        case MaxPool(size):
            return nn.MaxPool2d(size)
        case AveragePool(size):
            return nn.AvgPool2d(size)
        case ReLU():
            return nn.ReLU()
        case Flatten():
            return nn.Flatten()


def _host(tensor: Tensor) -> npt.NDArray[Any]:
    return np.array(tensor.detach().cpu().numpy())


class _Trainer:
    """SGD on one module."""

    def __init__(self, model: nn.Module, recipe: Recipe) -> None:
        self.model = model
        self._parameters = {n: p for n, p in model.named_parameters() if p.requires_grad}
        self._optimizer = torch.optim.SGD(
            self._parameters.values(),
            lr=recipe.lr,
            momentum=recipe.momentum,
            weight_decay=recipe.weight_decay,
        )

    def step(self, loss: LossFunction, x: Tensor, y: Any, lr: float) -> Losses | None:
        self.model.train()
        for group in self._optimizer.param_groups:
            group["lr"] = lr
        found = loss(self.model, self.model, x, y)
        self._optimizer.zero_grad()
        found.total.backward()
        gradients = [p.grad for p in self._parameters.values() if p.grad is not None]
        size = torch.nn.utils.get_total_norm(gradients)
        if not bool(torch.isfinite(found.total) & torch.isfinite(size)):
            return None
        self._optimizer.step()
        return Losses(*(float(term.detach()) for term in found))

    def state(self) -> dict[str, npt.NDArray[Any]]:
        weights = {f"weights.{n}": _host(t) for n, t in self.model.state_dict().items()}
        momentum = {
            f"momentum.{name}": _host(self._optimizer.state[parameter]["momentum_buffer"])
            for name, parameter in self._parameters.items()
            if self._optimizer.state[parameter].get("momentum_buffer") is not None
        }
        return weights | momentum

    def restore(self, state: Arrays) -> None:
        parts: dict[str, dict[str, Tensor]] = {"weights": {}, "momentum": {}}
        for key, value in state.items():
            part, _, name = key.partition(".")
            parts[part][name] = torch.as_tensor(np.array(value))
        self.model.load_state_dict(parts["weights"])
        self._optimizer.state.clear()
        for name, buffer in parts["momentum"].items():
            parameter = self._parameters[name]
            self._optimizer.state[parameter]["momentum_buffer"] = buffer.to(parameter)


class TorchTraining:
    """The training side of the PyTorch backend."""

    def build(self, network: Network, weights: Arrays) -> nn.Module:
        with self.seeded(0):  # only so that the native initialisation draws from no global state
            named = [
                (getattr(layer, "name", f"layer{i}"), _module(layer))
                for i, layer in enumerate(network.layers)
            ]
        dtype = torch.as_tensor(next(iter(weights.values()))).dtype
        model = self.load(nn.Sequential(OrderedDict(named)).to(dtype), weights)
        for kernel in (p for p in model.parameters() if p.dim() == 4):
            # A step of LeNet takes half of the time (2 CPU cores). `contiguous` would not do: it
            # leaves a kernel of one input channel as it is.
            kernel.data = kernel.data.to(memory_format=torch.channels_last)
        return model

    def copy(self, model: nn.Module) -> nn.Module:
        return copy.deepcopy(model)

    def weights(self, model: nn.Module) -> dict[str, npt.NDArray[Any]]:
        return {name: _host(tensor) for name, tensor in model.state_dict().items()}

    def load(self, model: nn.Module, weights: Arrays) -> nn.Module:
        model.load_state_dict({n: torch.as_tensor(np.array(v)) for n, v in weights.items()})
        return model

    def trainer(self, model: nn.Module, recipe: Recipe) -> _Trainer:
        return _Trainer(model, recipe)

    @contextmanager
    def seeded(self, *seed: int) -> Iterator[None]:
        with torch.random.fork_rng():
            torch.manual_seed(int(np.random.SeedSequence(seed).generate_state(1)[0]))
            yield
