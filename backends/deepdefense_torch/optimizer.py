"""The optimizers of the PyTorch backend: SGD, Adam and AdamW steps on one module."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from deepdefense.errors import InputError
from deepdefense.seam.training_contract import Losses, LossFunction, OptimizerName, StepResult
from deepdefense_torch.precision import without_autocast
from deepdefense_torch.weights import Arrays, to_host

__all__ = ["TorchTrainer"]


@contextmanager
def _training_mode(model: nn.Module) -> Iterator[None]:
    """Set the model and all its submodules to training mode; on exit restore their modes."""
    modes = [(module, module.training) for module in model.modules()]
    try:
        model.train()
        yield
    finally:
        for module, mode in modes:
            module.training = mode


def _make_optimizer(
    name: OptimizerName, parameters: list[nn.Parameter], momentum: float, weight_decay: float
) -> torch.optim.Optimizer:
    """Return PyTorch's optimizer of this name. `TorchTrainer.step` sets the learning rate."""
    if name == "sgd":
        return torch.optim.SGD(parameters, momentum=momentum, weight_decay=weight_decay)
    kind = torch.optim.Adam if name == "adam" else torch.optim.AdamW
    return kind(parameters, betas=(0.9, 0.999), eps=1e-8, weight_decay=weight_decay)


class TorchTrainer:
    """A module and its optimizer, which trains the parameters with `requires_grad`.

    It implements `deepdefense.seam.training_contract.Trainer`. `TorchTraining.trainer` makes it.
    """

    def __init__(
        self, model: nn.Module, optimizer: OptimizerName, momentum: float, weight_decay: float
    ) -> None:
        self.model = model
        self._parameters = {n: p for n, p in model.named_parameters() if p.requires_grad}
        if not self._parameters:
            raise InputError(
                "every parameter of the model is frozen: set requires_grad_(True) on the module, "
                "or on the layers to train"
            )
        self._optimizer = _make_optimizer(
            optimizer, list(self._parameters.values()), momentum, weight_decay
        )

    def step(
        self, loss: LossFunction, x: Tensor, y: Any, *points: Tensor, lr: float, clip: float
    ) -> StepResult | None:
        for group in self._optimizer.param_groups:
            group["lr"] = lr
        with _training_mode(self.model):
            losses = loss(self.model, self.model, x, y, *points)
            self._optimizer.zero_grad()
            # Autocast would compute the second derivatives of the penalty in 16 bits.
            with without_autocast():
                losses.total.backward(inputs=list(self._parameters.values()))
        result = self._update(losses, clip)
        self._optimizer.zero_grad()
        return result

    def _update(self, losses: Losses, clip: float) -> StepResult | None:
        """Clip the gradients, update the parameters and return the losses.

        If the loss or the gradients are not finite, change nothing and return None.
        """
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
        weights = {f"weights.{n}": to_host(t) for n, t in self.model.state_dict().items()}
        optimizer = {
            f"optimizer.{key}.{name}": to_host(value)
            for name, parameter in self._parameters.items()
            for key, value in self._optimizer.state.get(parameter, {}).items()
            if value is not None
        }
        return weights | optimizer

    def restore(self, state: Arrays) -> None:
        weights: dict[str, Tensor] = {}
        # PyTorch numbers the parameters in the optimizer's state.
        numbers = {name: i for i, name in enumerate(self._parameters)}
        values: dict[int, dict[str, Tensor]] = {}
        for path, value in state.items():
            part, _, name = path.partition(".")
            tensor = torch.as_tensor(np.array(value))
            if part == "weights":
                weights[name] = tensor
            else:
                key, _, name = name.partition(".")
                values.setdefault(numbers[name], {})[key] = tensor
        self.model.load_state_dict(weights)
        groups = self._optimizer.state_dict()["param_groups"]
        self._optimizer.load_state_dict({"state": values, "param_groups": groups})
