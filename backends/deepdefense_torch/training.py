"""Training in PyTorch: building and copying models, their weights, and SGD steps."""

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
from deepdefense.seam.training_contract import Losses, LossFunction, StepResult, TrainingBackend
from deepdefense.zoo import Network, weight_shapes
from deepdefense_torch.networks import build_chain
from deepdefense_torch.precision import without_autocast

__all__ = ["TorchTraining"]

Arrays = Mapping[str, npt.NDArray[Any]]


def _to_host(tensor: Tensor) -> npt.NDArray[Any]:
    # In C order, whatever the strides on the device: files hold none.
    return np.array(tensor.detach().cpu().numpy(), order="C")


@contextmanager
def _training_mode(model: nn.Module) -> Iterator[None]:
    """Set all modules to training mode; on exit restore the mode of each."""
    modes = [(module, module.training) for module in model.modules()]
    try:
        model.train()
        yield
    finally:
        for module, mode in modes:
            module.training = mode


class _Trainer:
    """SGD on the parameters of one module that are not frozen."""

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
        with _training_mode(self.model):
            losses = loss(self.model, self.model, x, y, *points)
            self._optimizer.zero_grad()
            # Autocast would compute the second derivatives of the penalty in 16 bits. Without
            # `inputs`, the pass would also compute gradients at the points of the search.
            with without_autocast():
                losses.total.backward(inputs=list(self._parameters.values()))
        result = self._update(losses, clip)
        self._optimizer.zero_grad()
        return result

    def _update(self, losses: Losses, clip: float) -> StepResult | None:
        """Clip the gradients and update the parameters, if loss and gradients are finite."""
        gradients = [p.grad for p in self._parameters.values() if p.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients)
        if not bool(torch.isfinite(losses.total) & torch.isfinite(norm)):
            return None
        if norm > clip:
            for gradient in gradients:
                gradient.mul_(clip / norm)
        self._optimizer.step()
        return StepResult(*(float(term.detach()) for term in (*losses, norm)))

    @torch.no_grad()
    def update_weights(self, to: Callable[[Mapping[str, Tensor]], Mapping[str, Tensor]]) -> None:
        for name, value in to(self._parameters).items():
            self._parameters[name].copy_(value)

    def state(self) -> dict[str, npt.NDArray[Any]]:
        weights = {f"weights.{n}": _to_host(t) for n, t in self.model.state_dict().items()}
        momentum = {
            f"momentum.{name}": _to_host(self._optimizer.state[parameter]["momentum_buffer"])
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
    """Training in PyTorch."""

    @contextmanager
    def on_device(self, device: str | None) -> Iterator[None]:
        try:
            torch.empty(0, device=device)
        except (RuntimeError, AssertionError) as error:  # NotImplementedError is a RuntimeError
            reason = str(error).partition(". ")[0]
            raise InputError(f"PyTorch has no device {device!r} here: {reason}") from error
        with nullcontext() if device is None else torch.device(device):
            yield

    def build(self, network: Network, weights: Arrays) -> nn.Module:
        with self.fixed_seed(0):  # PyTorch draws the initial weights, soon overwritten, at random
            model: nn.Module = build_chain(network.layers)
        dtype = torch.as_tensor(weights[next(iter(weight_shapes(network)))]).dtype
        model = self.load(model.to(dtype), weights)
        for kernel in (p for p in model.parameters() if p.dim() == 4):
            # Convolutions are faster so on CPUs. `contiguous` would leave a kernel of one input
            # channel unchanged.
            kernel.data = kernel.data.to(memory_format=torch.channels_last)
        return model.eval()  # a trainer's step sets training mode itself

    def copy(self, model: nn.Module) -> nn.Module:
        return copy.deepcopy(model)

    def weights(self, model: nn.Module) -> dict[str, npt.NDArray[Any]]:
        if not isinstance(model, nn.Module):
            return {}  # a plain function has no visible weights
        return {name: _to_host(tensor) for name, tensor in model.state_dict().items()}

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
