"""What training needs natively in PyTorch: weights, and one SGD step."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from deepdefense.errors import InputError
from deepdefense.seam.training import Losses, LossFunction, StepResult, TrainingBackend
from deepdefense.zoo import Network, weight_shapes
from deepdefense_torch.networks import chain
from deepdefense_torch.precision import without_autocast

__all__ = ["TorchTraining"]

Arrays = Mapping[str, npt.NDArray[Any]]


def _host(tensor: Tensor) -> npt.NDArray[Any]:
    # In the layout that names them, whatever it is on the device: files hold no strides.
    return np.array(tensor.detach().cpu().numpy(), order="C")


@contextmanager
def _in_training(model: nn.Module) -> Iterator[None]:
    """All modules in training mode; in the end each is in the mode that it came in."""
    modes = [(module, module.training) for module in model.modules()]
    try:
        model.train()
        yield
    finally:
        for module, mode in modes:
            module.training = mode


class _Trainer:
    """SGD on one module."""

    def __init__(self, model: nn.Module, momentum: float, weight_decay: float) -> None:
        self.model = model
        self._parameters = {n: p for n, p in model.named_parameters() if p.requires_grad}
        if not self._parameters:
            raise InputError(
                "every parameter of the model is frozen: set requires_grad_(True) on the module, "
                "or on the layers to train"
            )
        self._optimizer = torch.optim.SGD(
            self._parameters.values(),
            momentum=momentum,
            weight_decay=weight_decay,
        )

    def step(
        self, loss: LossFunction, x: Tensor, y: Any, *points: Tensor, lr: float, clip: float
    ) -> StepResult | None:
        for group in self._optimizer.param_groups:
            group["lr"] = lr
        with _in_training(self.model):
            found = loss(self.model, self.model, x, y, *points)
            self._optimizer.zero_grad()
            # In full precision, or second derivatives, of an exact penalty, would not be. Left to
            # itself the pass goes on to the points where gradients were taken, which nobody asks.
            with without_autocast():
                found.total.backward(inputs=list(self._parameters.values()))
        taken = self._taken(found, clip)
        self._optimizer.zero_grad()
        return taken

    def _taken(self, found: Losses, clip: float) -> StepResult | None:
        gradients = [p.grad for p in self._parameters.values() if p.grad is not None]
        size = torch.nn.utils.get_total_norm(gradients)
        if not bool(torch.isfinite(found.total) & torch.isfinite(size)):
            return None
        if size > clip:
            for gradient in gradients:
                gradient.mul_(clip / size)
        self._optimizer.step()
        return StepResult(*(float(term.detach()) for term in (*found, size)))

    @torch.no_grad()
    def update_weights(self, to: Callable[[Mapping[str, Tensor]], Mapping[str, Tensor]]) -> None:
        for name, value in to(self._parameters).items():
            self._parameters[name].copy_(value)

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


class TorchTraining(TrainingBackend):
    """The training side of the PyTorch backend."""

    @contextmanager
    def on_device(self, device: str | None) -> Iterator[None]:
        try:
            torch.empty(0, device=device)
        except (RuntimeError, AssertionError) as error:  # NotImplementedError is the first, too
            reason = str(error).partition(". ")[0]
            raise InputError(f"PyTorch has no device {device!r} here: {reason}") from error
        with nullcontext() if device is None else torch.device(device):
            yield

    def build(self, network: Network, weights: Arrays) -> nn.Module:
        with self.fixed_seed(
            0
        ):  # only so that the native initialisation draws from no global state
            model: nn.Module = chain(network.layers)
        dtype = torch.as_tensor(weights[next(iter(weight_shapes(network)))]).dtype
        model = self.load(model.to(dtype), weights)
        for kernel in (p for p in model.parameters() if p.dim() == 4):
            # A step of LeNet takes half of the time (2 CPU cores). `contiguous` would not do: it
            # leaves a kernel of one input channel as it is.
            kernel.data = kernel.data.to(memory_format=torch.channels_last)
        return model.eval()  # as whatever comes with weights; a trainer's step switches it itself

    def copy(self, model: nn.Module) -> nn.Module:
        return copy.deepcopy(model)

    def weights(self, model: nn.Module) -> dict[str, npt.NDArray[Any]]:
        if not isinstance(model, nn.Module):
            return {}  # a function may be attacked, but shows no weights
        return {name: _host(tensor) for name, tensor in model.state_dict().items()}

    def load(self, model: nn.Module, weights: Arrays) -> nn.Module:
        model.load_state_dict({n: torch.as_tensor(np.array(v)) for n, v in weights.items()})
        return model

    def freeze_except(self, model: nn.Module, layer: str) -> Callable[[Tensor], Tensor]:
        constant = {
            name: parameter.detach()
            for name, parameter in model.named_parameters()
            if name.rpartition(".")[0] != layer
        }
        return lambda x: torch.func.functional_call(model, constant, (x,))

    def trainer(
        self, model: nn.Module, *, momentum: float, weight_decay: float, seed: int
    ) -> _Trainer:
        return _Trainer(model, momentum, weight_decay)

    @contextmanager
    def fixed_seed(self, *seed: int) -> Iterator[None]:
        with torch.random.fork_rng():
            torch.manual_seed(int(np.random.SeedSequence(seed).generate_state(1)[0]))
            yield
