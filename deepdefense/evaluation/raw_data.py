"""Data as they were loaded, before preprocessing: functions that check and split their arrays."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from einops import rearrange

from deepdefense.errors import InputError

__all__ = [
    "DataError",
    "RawData",
    "hold_out",
    "to_channels_first",
    "to_class_indices",
    "to_float32",
]


class DataError(InputError):
    """Raised for data that cannot be used; the message says what was expected and how to fix it."""


class RawData(NamedTuple):
    """A training set and a test set as loaded, before `preprocess`; uint8 arrays hold pixels."""

    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray
    note: str = ""  # how the sets were made, appended to the description of preprocessing
    feature_names: tuple[str, ...] = ()  # of the columns of a table; otherwise empty


def to_channels_first(x: np.ndarray) -> np.ndarray:
    """Move the channels of uint8 images to the second axis; return other arrays unchanged.

    [n h w] -> [n 1 h w], and [n h w c] -> [n c h w] if c is 1 or 3.
    """
    if x.dtype == np.uint8 and x.ndim == 3:
        return rearrange(x, "n h w -> n 1 h w")
    if x.dtype == np.uint8 and x.ndim == 4 and x.shape[3] in (1, 3):
        return rearrange(x, "n h w c -> n c h w")
    return x


def to_class_indices(y: np.ndarray, n: int, where: str) -> np.ndarray:
    """Convert the labels of n examples to int64 [n].

    `where` says in the error message which labels are meant.

    Raises:
        DataError: the labels are not n integers, or one is negative.
    """
    if y.dtype.kind not in "iu" or y.shape != (n,):
        came = f"got {y.dtype} of shape {y.shape}"
        raise DataError(f"{where} must be {n} integers, a class for each example, {came}")
    y = y.astype(np.int64)
    if (y < 0).any():
        i = int(np.argmax(y < 0))
        raise DataError(f"{where} must not be negative, got {y[i]} at index {i}: drop or relabel")
    return y


def hold_out(x: np.ndarray, y: np.ndarray, seed: int) -> RawData:
    """Split examples at random into a training set and a test set.

    The test set gets 20 % of the examples of each class, and at least one of them. A class with
    only one example has it in the training set. `seed` determines the split. Both sets keep the
    order of the examples.
    """
    random = np.random.default_rng(seed)
    test = np.zeros(len(y), bool)
    for label in np.unique(y):
        rows = random.permutation(np.flatnonzero(y == label))
        test[rows[: max(round(0.2 * len(rows)), len(rows) > 1)]] = True
    note = f"; no published split: 20 % of each class held out as the test set, seed {seed}"
    return RawData(x[~test], y[~test], x[test], y[test], note)


def to_float32(x: np.ndarray, where: str) -> np.ndarray:
    """Copy an array to float32 in C order; raise `DataError` if a value is not finite."""
    with np.errstate(over="ignore"):  # an overflow is reported below as infinite
        floats = x.astype(np.float32, order="C")
    bad = ~np.isfinite(floats)
    if bad.any():
        first = tuple(int(i) for i in np.unravel_index(np.argmax(bad), bad.shape))
        count = f"{np.count_nonzero(bad)} NaN or infinite (as float32), the first at {first}"
        raise DataError(f"{where} data must be finite, {count}: drop or replace them")
    return floats
