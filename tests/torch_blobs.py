"""Train and harden a small PyTorch network on the blobs."""

from __future__ import annotations

from typing import Any

import pytest

import deepdefense as dd
from blobs import DEFENSE, RECIPE, TEST, TRAIN
from deepdefense.defenses.objective import Objective
from deepdefense.evaluation.dataset import dataset_from_arrays
from deepdefense.evaluation.rho_protocol import RHO_ATTACK
from deepdefense.seam.progress import Watcher
from deepdefense.seam.training_contract import training_backend
from deepdefense.training.loop import run_training
from deepdefense.training.monitor import Monitor

torch = pytest.importorskip("torch", reason="PyTorch is not installed")


def train_network() -> Any:
    """Return a network with dropout, trained on the blobs for a few epochs in float32."""
    torch.manual_seed(0)
    net = torch.nn.Sequential(
        torch.nn.Flatten(),
        torch.nn.Linear(16, 12),
        torch.nn.ReLU(),
        torch.nn.Dropout(0.1),
        torch.nn.Linear(12, 3),
    )
    with torch.no_grad():
        net[1].weight.mul_(3)
    backend = training_backend("torch")
    trainer = RECIPE.make_trainer(backend, net)
    monitor = Monitor.draw(backend, dataset_from_arrays(*TRAIN, *TEST), 0, RHO_ATTACK)
    options: Any = {"recipe": RECIPE, "objective": Objective(), "checkpoint": None}
    run_training("reference", trainer, monitor, watcher=Watcher(), **options)
    return net


def harden(model: Any, **options: Any) -> tuple[Any, dd.HardeningReport]:
    """Harden a model on the blobs; `options` override the recipe and defence of blobs.py."""
    return dd.harden(model, TRAIN, TEST, **{"defense": DEFENSE, "recipe": RECIPE, **options})


def have_same_weights(a: Any, b: Any) -> bool:
    """Return whether two PyTorch modules have equal weights."""
    return all(torch.equal(v, b.state_dict()[k]) for k, v in a.state_dict().items())
