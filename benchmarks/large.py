"""One epoch of hardening AlexNet and ResNet-18 on a folder of images of 224 x 224 pixels."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from deepdefense.app.data import load
from deepdefense.app.study.memory import read_peak_memory, run_in_new_process
from deepdefense.defenses.deep_defense import DeepDefense
from deepdefense.defenses.objective import Objective
from deepdefense.seam.training import training_backend
from deepdefense.training.epoch import train_epoch
from deepdefense.training.recipe import Recipe
from deepdefense.zoo import NETWORKS, initial_weights

__all__ = ["large"]

SIDE, CLASSES, EACH = 224, 4, 10
SMALL, BATCH = 2, 8
WAYS = {
    "plain": Objective(),
    "fast": DeepDefense.fast(),
    "implicit, 3 candidates": DeepDefense(gradient="implicit", candidates=3),
}


def _draw(folder: Path) -> None:
    """Pictures of a few blocks of colour, a folder for each class."""
    random = np.random.default_rng(0)
    for label in range(CLASSES):
        place = folder / f"class{label}"
        place.mkdir()
        for i in range(EACH):
            blocks = random.integers(0, 256, (2 + 2 * label, 2 + 2 * label, 3), dtype=np.uint8)
            picture = Image.fromarray(blocks).resize((SIDE, SIDE), Image.Resampling.NEAREST)
            picture.save(place / f"{i}.png")


def _measured(framework: str, kind: str, way: str) -> dict[str, Any]:
    """A few small batches, two epochs of that way, the second timed, and two plain ones."""
    backend = training_backend(framework)
    with tempfile.TemporaryDirectory() as folder:
        _draw(Path(folder))
        data = load(folder)
    network = NETWORKS[kind](data.x_train.shape[1:], data.classes)
    weights = initial_weights(network, 0, float(data.x_train.std()))
    trainer = Recipe().make_trainer(backend, backend.build(network, weights))

    def seconds(objective: Objective, batch: int, images: int) -> float:
        x, y = data.x_train[:images], data.y_train[:images]
        recipe = Recipe(lr=0.0, batch_size=batch)  # what compiles does so in the first epoch
        for epoch in range(2):
            found = train_epoch(
                backend, trainer, x, y, recipe=recipe, objective=objective, epoch=epoch
            )
        return found.seconds / images

    examples = len(data.x_train)
    seconds(WAYS[way], SMALL, BATCH)
    small = read_peak_memory()
    own = seconds(WAYS[way], BATCH, examples)
    most = read_peak_memory()
    return {
        "subject": f"{framework}, {kind}",
        "way": way,
        "examples": examples,
        "batch": BATCH,
        "seconds_per_example": own,
        "ratio": 1.0 if way == "plain" else own / seconds(Objective(), BATCH, examples),
        "peak_mb": most,
        "mb_per_example": most and small and (most - small) / (BATCH - SMALL),
    }


def large(framework: str, kind: str) -> Iterator[dict[str, Any]]:
    """Seconds and memory an example, each way in a process of its own, whose peak is its own.

    Weights are initial ones: for the cost alone.
    """
    for way in WAYS:
        yield run_in_new_process(_measured, framework, kind, way)
