"""Training in PyTorch: build and copy models, and read and load their weights.

The optimizer is in optimizer.py.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from deepdefense.errors import InputError
from deepdefense.seam.training_contract import OptimizerName, TrainingBackend
from deepdefense.zoo import Network, weight_shapes
from deepdefense_torch.modules import is_compiled
from deepdefense_torch.networks import build_chain
from deepdefense_torch.optimizer import TorchTrainer
from deepdefense_torch.weights import Arrays, to_host

__all__ = ["TorchTraining"]


class TorchTraining(TrainingBackend):
    """The training methods of the PyTorch backend. A model is a module."""

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
        # New modules draw random weights. The context keeps that from changing the user's random
        # state.
        with self.fixed_seed(0):
            model: nn.Module = build_chain(network.layers)
        dtype = torch.as_tensor(weights[next(iter(weight_shapes(network)))]).dtype
        model = self.load(model.to(dtype), weights)
        for kernel in (p for p in model.parameters() if p.dim() == 4):
            # Convolutions with this memory format are faster on CPUs. Unlike `to`, `contiguous`
            # would not change kernels with one input channel.
            kernel.data = kernel.data.to(memory_format=torch.channels_last)
        return model.eval()  # `TorchTrainer.step` sets training mode

    def copy(self, model: nn.Module) -> nn.Module:
        return copy.deepcopy(model)

    def weights(self, model: nn.Module) -> dict[str, npt.NDArray[Any]]:
        if not isinstance(model, nn.Module):
            return {}  # a plain function exposes no weights
        return {name: to_host(tensor) for name, tensor in model.state_dict().items()}

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
        self,
        model: nn.Module,
        *,
        optimizer: OptimizerName,
        momentum: float,
        weight_decay: float,
        seed: int,
    ) -> TorchTrainer:
        return TorchTrainer(model, optimizer, momentum, weight_decay)

    @contextmanager
    def fixed_seed(self, *seed: int) -> Iterator[None]:
        with torch.random.fork_rng():
            torch.manual_seed(int(np.random.SeedSequence(seed).generate_state(1)[0]))
            yield

    def thread_count(self, model: Any, x: Tensor) -> int | None:
        # A compiled model would be compiled again for each number of threads.
        if x.device.type != "cpu" or is_compiled(model):
            return None
        return torch.get_num_threads()

    @contextmanager
    def limit_threads(self, count: int) -> Iterator[None]:
        before = torch.get_num_threads()
        torch.set_num_threads(count)
        try:
            yield
        finally:
            torch.set_num_threads(before)
