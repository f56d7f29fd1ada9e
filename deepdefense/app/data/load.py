"""Load a data set, given its name or the path of a file or folder."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from deepdefense.app.data.decoding import ImageSize, decode_dataset
from deepdefense.app.data.digits import read_digits
from deepdefense.app.data.image_folder import load_image_folder
from deepdefense.app.data.npz import load_npz
from deepdefense.app.data.parquet import HUB_SETS, load_parquet, load_published
from deepdefense.app.data.table import find_tables, load_tables
from deepdefense.evaluation.dataset import (
    DataError,
    Dataset,
    hold_out,
    preprocess,
    to_channels_first,
)

__all__ = ["load_data"]


def load_data(
    source: str | Path,
    *,
    data_dir: str | Path | None = None,
    seed: int = 0,
    label: str | None = None,
    resize: str | None = None,
    standardize: bool = False,
) -> Dataset:
    """Load a data set and preprocess it.

    If the source has no test set, 20 % of each class are drawn with `seed` to be the test set.

    Args:
        source: digits, mnist or cifar10, the name of a published data set; or the path of a file or
            folder in one of the formats that docs/data.md lists.
        data_dir: a folder with a copy of mnist or cifar10, directly or in a sub-folder of that
            name. None: these two are downloaded from the Hugging Face hub.
        seed: the seed of the split into training and test set.
        label: the column of labels, for tables and parquet files. None: found by its name.
        resize: the size of images, N or HEIGHTxWIDTH. None: all images must have one size already.
        standardize: divide each feature by its standard deviation, after subtracting its mean.

    Raises:
        DataError: data are missing, cannot be read or cannot be used.
    """
    source, path = str(source), Path(source).expanduser().resolve()
    size = None if resize is None else _parse_size(resize)
    tables = None if source in ("digits", *HUB_SETS) else find_tables(path)
    is_parquet = path.suffix == ".parquet" or any(path.glob("*.parquet"))
    is_npz = path.is_file() and path.suffix == ".npz"
    if size is not None and (source == "digits" or is_npz or tables):
        raise DataError(f"{source}: resize is for files of images: leave it out")
    if label is not None and not (tables or is_parquet):
        raise DataError(f"{source}: label is for tables and parquet files: leave it out")
    if source == "digits":
        images, y = read_digits()
        raw = hold_out(to_channels_first(images), y, seed)
        return preprocess(source, raw, (), width=16, standardize=standardize)
    decode = partial(decode_dataset, seed=seed, size=size, standardize=standardize)
    if source in HUB_SETS:
        splits, shape = load_published(source, data_dir), HUB_SETS[source][1]
        return decode(source, splits, shape=shape if size is None else (shape[0], *size))
    if tables is not None:
        raw, names = load_tables(path.stem, tables, label, seed)
        return preprocess(path.stem, raw, names, standardize=standardize)
    if is_npz:
        return preprocess(path.stem, load_npz(path, seed), (), standardize=standardize)
    if path.exists() and is_parquet:
        return decode(path.stem, load_parquet(path, label))
    if path.is_dir():
        return decode(path.name, load_image_folder(path))
    came = "a file of another kind" if path.exists() else "which does not exist"
    expected = f"digits, {', '.join(HUB_SETS)}, an .npz, .csv, .tsv or .parquet file or a folder"
    raise DataError(f"data must be {expected}, got {source!r}, {came}")


def _parse_size(text: str) -> ImageSize:
    """Return the height and width that "N" or "HEIGHTxWIDTH" means."""
    sides = text.lower().split("x")
    if len(sides) > 2 or not all(side.isdecimal() and int(side) > 0 for side in sides):
        expected = "a size in pixels, such as 64, or height x width, such as 48x64"
        raise DataError(f"resize must be {expected}, got {text!r}")
    return int(sides[0]), int(sides[-1])
