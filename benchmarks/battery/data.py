"""The data of the battery: scikit-learn's tables and pictures, parts of MNIST and of CIFAR-10."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
from sklearn import datasets

from deepdefense.app.data.decoding import decode_dataset
from deepdefense.app.data.encoded_images import EncodedImages
from deepdefense.app.data.parquet import load_published

__all__ = [
    "Examples",
    "Reader",
    "cut_textures",
    "draw_published",
    "split_digits",
    "split_table",
]

Array: TypeAlias = npt.NDArray[Any]

TRAINING_SHARE = 0.7  # of the examples of data without a published test set


class Examples(NamedTuple):
    """Training and test examples, float32 [n ...], and their labels, int64 [n]."""

    x_train: Array
    y_train: Array
    x_test: Array
    y_test: Array


# Returns the examples for a seed. The folder has copies of MNIST and CIFAR-10.
Reader: TypeAlias = Callable[[int, Path | None], Examples]


def split_table(
    load: Callable[..., tuple[Array, Array]], seed: int, *, standardise: bool = True
) -> Examples:
    """Split one of scikit-learn's tables at random into training and test examples.

    With `standardise`, the mean of each training feature becomes 0, and its deviation 1.
    """
    x, y = load(return_X_y=True)
    order = np.random.default_rng(seed).permutation(len(y))
    train, test = np.split(order, [int(TRAINING_SHARE * len(y))])
    if standardise:
        x = (x - x[train].mean(0)) / x[train].std(0)
    x, y = x.astype(np.float32), y.astype(np.int64)
    return Examples(x[train], y[train], x[test], y[test])


def split_digits(seed: int) -> Examples:
    """Split scikit-learn's digits at random; the images [n 1 8 8] have pixels in [0, 1]."""
    data = split_table(datasets.load_digits, seed, standardise=False)
    x_train, x_test = (x.reshape(-1, 1, 8, 8) / np.float32(16) for x in (data.x_train, data.x_test))
    return data._replace(x_train=x_train, x_test=x_test)


def cut_textures(seed: int, *, train: int, test: int, side: int) -> Examples:
    """Cut square patches at random from six areas of scikit-learn's two photographs.

    The label of a patch is its area. Patches may overlap, also those for training and for testing.
    The images [n 3 side side] have pixels in [0, 1].
    """
    areas: list[Array] = []
    for name in ("china.jpg", "flower.jpg"):
        picture = datasets.load_sample_image(name).astype(np.float32) / 255
        areas += [picture[:200, :320], picture[-200:, :160], picture[-200:, 320:480]]
    random = np.random.default_rng(seed)

    def cut(count: int) -> tuple[Array, Array]:
        labels = np.arange(count) % len(areas)
        patches = []
        for label in labels:
            area = areas[label]
            row, column = (random.integers(0, size - side) for size in area.shape[:2])
            patches.append(area[row : row + side, column : column + side].transpose(2, 0, 1))
        return np.stack(patches), labels.astype(np.int64)

    return Examples(*cut(train), *cut(test))


@cache
def _load_encoded(name: str, folder: Path) -> tuple[EncodedImages, EncodedImages]:
    """Load the encoded training and test images of MNIST or CIFAR-10 from the folder."""
    (train,), (test,) = load_published(name, folder)
    return train, test


def draw_published(
    name: str, seed: int, folder: Path | None, *, train: int, test: int, classes: int
) -> Examples:
    """Draw images [n c h w] of the first `classes` classes of MNIST or CIFAR-10 at random.

    The pixels are in [0, 1].
    """
    if folder is None:
        raise ValueError(f"{name} needs a folder")
    random = np.random.default_rng(seed)

    def draw(images: EncodedImages, count: int) -> list[EncodedImages]:
        rows = random.permutation(np.flatnonzero(images.labels < classes))[:count]
        return [
            images._replace(images=[images.images[i] for i in rows], labels=images.labels[rows])
        ]

    all_train, all_test = _load_encoded(name, folder)
    data = decode_dataset(name, (draw(all_train, train), draw(all_test, test)), seed)
    # The data set has pixels 0..255 minus the mean image. Rounding restores the exact pixels.
    x_train, x_test = (
        np.rint(x + data.mean) / np.float32(255) for x in (data.x_train, data.x_test)
    )
    return Examples(x_train, data.y_train, x_test, data.y_test)
