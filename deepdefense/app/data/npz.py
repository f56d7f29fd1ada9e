"""Read .npz files, which hold either x_train, y_train, x_test and y_test, or x and y."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from deepdefense.app.data.optional_imports import convert_errors
from deepdefense.evaluation.dataset import (
    DataError,
    RawData,
    hold_out,
    to_channels_first,
    to_class_indices,
)

__all__ = ["load_npz"]

SPLIT_KEYS, WHOLE_KEYS = ("x_train", "y_train", "x_test", "y_test"), ("x", "y")


def load_npz(path: Path, seed: int) -> RawData:
    """Load the arrays of a user's .npz file, and split them if they hold no test set.

    If the file holds only x and y, test examples are drawn from them with `seed`. Raises
    `DataError` if an array is missing or cannot be used.
    """
    with (
        convert_errors(f"{path} could not be read as an .npz archive of plain arrays"),
        path.open("rb") as file,
        np.load(file, allow_pickle=False) as archive,
    ):
        names = list(archive.files)
        keys = SPLIT_KEYS if set(SPLIT_KEYS) <= set(names) else WHOLE_KEYS
        arrays = {key: archive[key] for key in keys if key in names}
    if len(arrays) < len(keys):
        expected = f"{', '.join(SPLIT_KEYS)}, or x, y (examples [n ...] and integer labels [n])"
        came = ", ".join(names[:9]) or "none"
        raise DataError(f"{path} must have the keys {expected}; has {came}: rename its arrays")
    for key in keys:  # each x comes before its y, whose check needs the number of examples
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
