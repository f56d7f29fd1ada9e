"""Where data come from: a name, a file or a folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from deepdefense.app.data.images import HUB, from_images, image_folder, parquet, published
from deepdefense.app.data.reading import optional, reading
from deepdefense.evaluation.dataset import (
    DataError,
    Dataset,
    RawData,
    hold_out,
    preprocess,
    to_channels_first,
    to_class_indices,
)

__all__ = ["load_data"]

SPLIT_KEYS, WHOLE_KEYS = ("x_train", "y_train", "x_test", "y_test"), ("x", "y")


def load_data(source: str | Path, *, data_dir: str | Path | None = None, seed: int = 0) -> Dataset:
    """The data named by `source`, preprocessed.

    `source` is digits, mnist, cifar10, or the path of an .npz or .parquet file, of a folder with
    train*.parquet and test*.parquet, or of a folder of images with a sub-folder for each class
    (or with train/ and test/, val/ or validation/ of these).

    `data_dir` has a copy of mnist or cifar10, in itself or in a sub-folder of that name; without
    it they come from the Hugging Face hub, and stay in its cache. Where no test set is published,
    `seed` draws 20 % of each class. Raises `DataError` if anything is missing, broken or unfit.
    """
    source, path = str(source), Path(source).expanduser().resolve()
    if source == "digits":
        digits = optional("sklearn.datasets").load_digits()
        x = to_channels_first(digits.images.astype(np.uint8))  # whole numbers, 0..16
        return preprocess(source, hold_out(x, digits.target.astype(np.int64), seed), (), width=16)
    if source in HUB:
        return from_images(source, published(source, data_dir), seed, HUB[source][1])
    if path.is_file() and path.suffix == ".npz":
        return preprocess(path.stem, npz_arrays(path, seed), ())
    if path.is_dir() and not any(path.glob("*.parquet")):
        return from_images(path.name, image_folder(path), seed)
    if path.is_dir() or (path.is_file() and path.suffix == ".parquet"):
        return from_images(path.stem, parquet(path), seed)
    came = "a file of another kind" if path.exists() else "which does not exist"
    known = f"digits, {', '.join(HUB)}, an .npz or .parquet file or a folder"
    raise DataError(f"data must be {known}, got {source!r}, {came}")


def npz_arrays(path: Path, seed: int) -> RawData:
    """Arrays of the user's: uint8 are pixels, all others are taken as they are."""
    failed = f"{path} could not be read as an .npz archive of plain arrays"
    with reading(failed), path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
        there = list(archive.files)
        keys = SPLIT_KEYS if set(SPLIT_KEYS) <= set(there) else WHOLE_KEYS
        found = {key: archive[key] for key in keys if key in there}
    if len(found) < len(keys):
        expected = f"{', '.join(SPLIT_KEYS)}, or x, y"
        raise DataError(f"{path} must have the keys {expected}; has {', '.join(there) or 'none'}")
    for key in keys:  # an x comes before its y
        array, where = found[key], f"{path}: {key}"
        if key.startswith("y"):
            found[key] = to_class_indices(array, len(found["x" + key[1:]]), where)
        elif array.dtype.kind in "biuf" and array.ndim >= 2 and 0 not in array.shape[1:]:
            found[key] = to_channels_first(array)
        else:
            raise DataError(f"{where} must be numbers [n ...], got {array.dtype} {array.shape}")
    if keys == WHOLE_KEYS:
        return hold_out(found["x"], found["y"], seed)
    raw = RawData(*(found[key] for key in keys))
    if (raw.x_train.dtype == np.uint8) != (raw.x_test.dtype == np.uint8):
        came = f"{raw.x_train.dtype} and {raw.x_test.dtype}"
        raise DataError(f"{path}: x_train and x_test must both be uint8 or neither, got {came}")
    return raw
