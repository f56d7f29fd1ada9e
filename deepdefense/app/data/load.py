"""Load data by a name, from a file or from a folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from deepdefense.app.data.decoding import decode_dataset
from deepdefense.app.data.image_folder import load_image_folder
from deepdefense.app.data.npz import load_npz
from deepdefense.app.data.optional_imports import import_optional
from deepdefense.app.data.parquet import HUB_SETS, load_parquet, load_published
from deepdefense.evaluation.dataset import (
    DataError,
    Dataset,
    hold_out,
    preprocess,
    to_channels_first,
)

__all__ = ["load_data"]


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
        return preprocess(path.stem, load_npz(path, seed), ())
    if path.is_dir() and not any(path.glob("*.parquet")):
        return decode_dataset(path.name, load_image_folder(path), seed)
    if path.is_dir() or (path.is_file() and path.suffix == ".parquet"):
        return decode_dataset(path.stem, load_parquet(path), seed)
    came = "a file of another kind" if path.exists() else "which does not exist"
    expected = f"digits, {', '.join(HUB_SETS)}, an .npz or .parquet file or a folder"
    raise DataError(f"data must be {expected}, got {source!r}, {came}")
