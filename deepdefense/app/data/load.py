"""Load data by a name, from a file or from a folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from deepdefense.app.data.images import (
    HUB_SETS,
    decode_dataset,
    load_image_folder,
    load_parquet,
    load_published,
)
from deepdefense.app.data.optional_imports import convert_errors, import_optional
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
    """Load and preprocess the data named by `source`.

    `source` is digits, mnist, cifar10, or the path of an .npz or .parquet file, of a folder with
    train*.parquet and test*.parquet, or of a folder of images with a sub-folder for each class
    (or with train/, and test/, val/ or validation/, of these).

    `data_dir` holds a copy of mnist or cifar10, itself or in a sub-folder of that name. Without it
    they come from the Hugging Face hub, and stay in its cache. If no test set is published, `seed`
    draws 20 % of each class. Raises `DataError` if anything is missing, broken or unfit.
    """
    source, path = str(source), Path(source).expanduser().resolve()
    if source == "digits":
        digits = import_optional("sklearn.datasets").load_digits()
        x = to_channels_first(digits.images.astype(np.uint8))  # whole numbers, 0..16
        return preprocess(source, hold_out(x, digits.target.astype(np.int64), seed), (), width=16)
    if source in HUB_SETS:
        return decode_dataset(source, load_published(source, data_dir), seed, HUB_SETS[source][1])
    if path.is_file() and path.suffix == ".npz":
        return preprocess(path.stem, _load_npz(path, seed), ())
    if path.is_dir() and not any(path.glob("*.parquet")):
        return decode_dataset(path.name, load_image_folder(path), seed)
    if path.is_dir() or (path.is_file() and path.suffix == ".parquet"):
        return decode_dataset(path.stem, load_parquet(path), seed)
    came = "a file of another kind" if path.exists() else "which does not exist"
    expected = f"digits, {', '.join(HUB_SETS)}, an .npz or .parquet file or a folder"
    raise DataError(f"data must be {expected}, got {source!r}, {came}")


def _load_npz(path: Path, seed: int) -> RawData:
    """Load a user's arrays: uint8 are pixels, all others stay as they are."""
    with (
        convert_errors(f"{path} could not be read as an .npz archive of plain arrays"),
        path.open("rb") as file,
        np.load(file, allow_pickle=False) as archive,
    ):
        names = list(archive.files)
        keys = SPLIT_KEYS if set(SPLIT_KEYS) <= set(names) else WHOLE_KEYS
        arrays = {key: archive[key] for key in keys if key in names}
    if len(arrays) < len(keys):
        expected = f"{', '.join(SPLIT_KEYS)}, or x, y"
        raise DataError(f"{path} must have the keys {expected}; has {', '.join(names) or 'none'}")
    for key in keys:  # each x before its y
        array, where = arrays[key], f"{path}: {key}"
        if key.startswith("y"):
            arrays[key] = to_class_indices(array, len(arrays["x" + key[1:]]), where)
        elif array.dtype.kind in "biuf" and array.ndim >= 2 and 0 not in array.shape[1:]:
            arrays[key] = to_channels_first(array)
        else:
            raise DataError(f"{where} must be numbers [n ...], got {array.dtype} {array.shape}")
    if keys == WHOLE_KEYS:
        return hold_out(arrays["x"], arrays["y"], seed)
    raw = RawData(*(arrays[key] for key in keys))
    if (raw.x_train.dtype == np.uint8) != (raw.x_test.dtype == np.uint8):
        came = f"{raw.x_train.dtype} and {raw.x_test.dtype}"
        raise DataError(f"{path}: x_train and x_test must both be uint8 or neither, got {came}")
    return raw
