"""Measure an epoch of hardening AlexNet and ResNet-18 on a folder of images of 224 x 224."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from deepdefense.app.data import load_data
from deepdefense.app.study.memory import read_peak_memory, run_in_new_process
from deepdefense.defenses.deep_defense import DeepDefense
from deepdefense.defenses.objective import Objective
from deepdefense.seam.training_contract import training_backend
from deepdefense.training.epoch import train_epoch
from deepdefense.training.recipe import Recipe
from deepdefense.zoo import NETWORKS, initial_weights

__all__ = ["measure_images"]

SIDE, CLASSES, IMAGES_PER_CLASS = 224, 4, 10
# Memory per image is the difference of the peaks with these two batch sizes, per additional image.
SMALL_BATCH, BATCH = 2, 8
METHODS = {
    "plain": Objective(),
    "fast": DeepDefense.fast(),
    "implicit, 3 candidates": DeepDefense(gradient="implicit", candidates=3),
}


def _draw_images(folder: Path) -> None:
    """Write pictures of coloured blocks, one sub-folder for each class."""
    random = np.random.default_rng(0)
    for label in range(CLASSES):
        class_folder = folder / f"class{label}"
        class_folder.mkdir()
        for i in range(IMAGES_PER_CLASS):
            blocks = random.integers(0, 256, (2 + 2 * label, 2 + 2 * label, 3), dtype=np.uint8)
            picture = Image.fromarray(blocks).resize((SIDE, SIDE), Image.Resampling.NEAREST)
            picture.save(class_folder / f"{i}.png")


def _measure_epoch(framework: str, kind: str, method: str) -> dict[str, Any]:
    """Measure time and memory of an epoch by this method, and its time relative to a plain epoch.

    Each measured epoch follows a warm-up epoch.
    """
    backend = training_backend(framework)
    with tempfile.TemporaryDirectory() as folder:
        _draw_images(Path(folder))
        data = load_data(folder)
    network = NETWORKS[kind](data.x_train.shape[1:], data.classes)
    weights = initial_weights(network, 0, float(data.x_train.std()))
    trainer = Recipe().make_trainer(backend, backend.build(network, weights))

    def train_twice(objective: Objective, batch: int, images: int) -> float:
        """Train two epochs on the first images; return the seconds per image of the second one."""
        x, y = data.x_train[:images], data.y_train[:images]
        recipe = Recipe(lr=0.0, batch_size=batch)
        for epoch in range(2):  # JAX and TensorFlow compile in the first epoch
            result = train_epoch(
                backend, trainer, x, y, recipe=recipe, objective=objective, epoch=epoch
            )
        return result.seconds / images

    examples = len(data.x_train)
    train_twice(METHODS[method], SMALL_BATCH, BATCH)
    small_peak = read_peak_memory()
    seconds = train_twice(METHODS[method], BATCH, examples)
    peak = read_peak_memory()
    plain = method == "plain"
    return {
        "subject": f"{framework}, {kind}",
        "way": method,
        "examples": examples,
        "batch": BATCH,
        "seconds_per_example": seconds,
        "ratio": 1.0 if plain else seconds / train_twice(Objective(), BATCH, examples),
        "peak_mb": peak,
        "mb_per_example": peak and small_peak and (peak - small_peak) / (BATCH - SMALL_BATCH),
    }


def measure_images(framework: str, kind: str) -> Iterator[dict[str, Any]]:
    """Measure time and memory per image for every method on a network with initial weights.

    Each method runs in its own process, because the peak memory of a process cannot be reset.
    """
    for method in METHODS:
        yield run_in_new_process(_measure_epoch, framework, kind, method)
