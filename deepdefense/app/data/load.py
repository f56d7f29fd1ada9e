"""Load a data set, given its name or the path of a file or folder."""

from __future__ import annotations

from pathlib import Path

from deepdefense.app.data.decoding import decode_dataset
from deepdefense.app.data.digits import read_digits
from deepdefense.app.data.image_folder import load_image_folder
from deepdefense.app.data.npz import load_npz
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
    """Load a data set and preprocess it.

    `source` is one of these:

    - digits, mnist or cifar10, the name of a published data set;
    - the path of an .npz or a .parquet file;
    - the path of a folder with the files train*.parquet and test*.parquet;
    - the path of a folder of images with a sub-folder for each class;
    - the path of a folder with train/ for the training set, and one of test/, val/ and validation/
      for the test set. Each of the two folders has a sub-folder of images for each class.

    `data_dir` is a folder with a copy of mnist or cifar10, directly or in a sub-folder of that
    name. Without `data_dir`, these two are downloaded from the Hugging Face hub.

    If the source has no test set, 20 % of each class are drawn with `seed` to be the test set.
    Raises `DataError` if data are missing, cannot be read or cannot be used.
    """
    source, path = str(source), Path(source).expanduser().resolve()
    if source == "digits":
        images, y = read_digits()
        return preprocess(source, hold_out(to_channels_first(images), y, seed), (), width=16)
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
