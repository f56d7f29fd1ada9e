"""A data set in memory: checked, split and centred arrays."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from einops import rearrange

from deepdefense.errors import InputError

__all__ = [
    "DataError",
    "Dataset",
    "RawData",
    "dataset_from_arrays",
    "fingerprint",
    "hold_out",
    "preprocess",
    "to_channels_first",
    "to_class_indices",
]


class DataError(InputError):
    """Data that cannot be used: what was expected, what came, what to do, in one line."""


def fingerprint(arrays: Iterable[np.ndarray]) -> str:
    """The first 16 hexadecimal digits of a SHA-256 of arrays, in their order."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(f"{array.dtype.str}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()[:16]


@dataclass(frozen=True, eq=False)
class Dataset:
    """A training and a test set in memory, preprocessed."""

    name: str
    x_train: np.ndarray  # float32 [n ...], images as [n c h w]
    y_train: np.ndarray  # int64 [n], 0..classes-1, each of them present
    x_test: np.ndarray
    y_test: np.ndarray
    classes: int
    mean: np.ndarray  # float32 [...]: x + mean are pixels in 0..scale, if x are images
    scale: float  # 0: not images, which are [n c h w] with c 1 or 3
    preprocessing: str  # one sentence, for the report
    class_names: tuple[str, ...]

    def fingerprint(self) -> str:
        """What changes with any value, label or their order."""
        return fingerprint((self.x_train, self.y_train, self.x_test, self.y_test))

    def pixel_bounds(self) -> tuple[np.ndarray, np.ndarray] | None:
        """The range of pixels as the network takes them, shifted by the mean; None: not pixels."""
        return (-self.mean, np.float32(self.scale) - self.mean) if self.scale == 255 else None

    def shorten(self, examples: int | None = None, test: int | None = None) -> Dataset:
        """With the first training and test examples alone, as many or as there are.

        None: all of them. Raises `DataError` if a class is then without training examples.
        """
        labels = self.y_train[:examples]
        missing = self.classes - len(np.unique(labels))
        if missing:
            raise DataError(
                f"the first {examples} training examples of {self.name} lack {missing} of its "
                f"{self.classes} classes: take more of them"
            )
        return replace(
            self,
            x_train=self.x_train[:examples],
            y_train=labels,
            x_test=self.x_test[:test],
            y_test=self.y_test[:test],
        )

    def to_pictures(self, x: np.ndarray) -> np.ndarray | None:
        """Examples as pictures [n h w c], of the data in 0..1; None if they are not images."""
        if not self.scale:
            return None
        pictures: np.ndarray = rearrange((x + self.mean) / self.scale, "n c h w -> n h w c")
        return pictures


class RawData(NamedTuple):
    """Both sets before preprocessing; arrays of uint8 are pixels."""

    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray
    note: str = ""  # where the test set is from, if that needs saying


def dataset_from_arrays(
    x_train: np.ndarray, y_train: np.ndarray, x_test: np.ndarray, y_test: np.ndarray
) -> Dataset:
    """A data set of arrays that are preprocessed already: nothing is subtracted.

    Raises `DataError` for labels or shapes that do not fit, and for values that are not finite.
    """
    for name, x, y in (("training", x_train, y_train), ("test", x_test, y_test)):
        if x.ndim < 2 or x.dtype.kind not in "biuf":
            raise DataError(f"{name} examples must be numbers [n ...], got {x.dtype} {x.shape}")
        to_class_indices(y, len(x), f"{name} labels")
    raw = RawData(x_train.astype(np.float32), y_train, x_test.astype(np.float32), y_test)
    return preprocess("arrays", raw, ())


def to_channels_first(x: np.ndarray) -> np.ndarray:
    """Pixels (uint8) [n h w] or [n h w c], c 1 or 3, as [n c h w]; all else as it is."""
    if x.dtype == np.uint8 and x.ndim == 3:
        return rearrange(x, "n h w -> n 1 h w")
    if x.dtype == np.uint8 and x.ndim == 4 and x.shape[3] in (1, 3):
        return rearrange(x, "n h w c -> n c h w")
    return x


def to_class_indices(y: np.ndarray, n: int, where: str) -> np.ndarray:
    """Labels as int64 [n], none negative."""
    if y.dtype.kind not in "iu" or y.shape != (n,):
        came = f"got {y.dtype} of shape {y.shape}"
        raise DataError(f"{where} must be {n} integers, a class for each example, {came}")
    y = y.astype(np.int64)
    if (y < 0).any():
        i = int(np.argmax(y < 0))
        raise DataError(f"{where} must not be negative, got {y[i]} at index {i}: drop or relabel")
    return y


def hold_out(x: np.ndarray, y: np.ndarray, seed: int) -> RawData:
    """A seeded test set of 20 % of each class, at least one of two or more; the order is kept."""
    random = np.random.default_rng(seed)
    test = np.zeros(len(y), bool)
    for label in np.unique(y):
        rows = random.permutation(np.flatnonzero(y == label))
        test[rows[: max(round(0.2 * len(rows)), len(rows) > 1)]] = True
    note = f"; no published split: 20 % of each class held out as the test set, seed {seed}"
    return RawData(x[~test], y[~test], x[test], y[test], note)


def preprocess(name: str, raw: RawData, names: tuple[str, ...], width: int = 255) -> Dataset:
    """Checked, as float32, and pixels, brought to 0..255 from 0..width, minus their mean."""
    if not (len(raw.x_train) and len(raw.x_test)):
        came = f"got {len(raw.x_train)} and {len(raw.x_test)}"
        raise DataError(f"{name}: expected examples for training and for testing, {came}")
    shape, test_shape = raw.x_train.shape[1:], raw.x_test.shape[1:]
    if shape != test_shape:
        raise DataError(f"{name}: training and test shapes must agree, got {shape}, {test_shape}")
    classes = _count_classes(name, raw, names)
    x_train, x_test = (
        _to_float32(raw.x_train, f"{name}: train"),
        _to_float32(raw.x_test, f"{name}: test"),
    )
    images = len(shape) == 3 and shape[0] in (1, 3)
    if raw.x_train.dtype == np.uint8:
        # Sums of whole numbers are exact in float64: the mean is the same on every machine.
        unit = 255 / width
        mean = (unit * raw.x_train.mean(axis=0, dtype=np.float64)).astype(np.float32)
        x_train, x_test = (np.float32(unit) * x - mean for x in (x_train, x_test))
        scale = 255.0 if images else 0.0
        came = "pixels 0..255" if width == 255 else f"pixels 0..{width} brought to 0..255,"
        done = f"{came} minus the training mean image"
    else:
        low, high = float(x_test.min()), float(x_test.max())
        mean = np.full(shape, -low, np.float32)
        scale = (high - low or 1.0) if images else 0.0
        done = "taken as they are, nothing subtracted"
    names = names[:classes] or tuple(map(str, range(classes)))
    arrays = (x_train, raw.y_train, x_test, raw.y_test)
    return Dataset(name, *arrays, classes, mean, scale, done + raw.note, names)


def _count_classes(name: str, raw: RawData, names: tuple[str, ...]) -> int:
    """How many classes there are: training labels are 0..classes-1, test labels among them."""
    seen = np.unique(raw.y_train)
    classes, unseen = len(seen), np.setdiff1d(raw.y_test, seen)
    gaps = np.flatnonzero(seen != np.arange(classes))
    missing = int(gaps[0] if len(gaps) else unseen[0] if len(unseen) else -1)
    if missing >= 0:
        which = f"{missing} ({names[missing]})" if missing < len(names) else str(missing)
        used = f"{classes} labels of {seen[0]}..{seen[-1]} occur there, {which} does not"
        raise DataError(f"{name}: training must have all labels 0..classes-1, {used}: relabel")
    if classes < 2:
        raise DataError(f"{name}: expected two classes or more, all training labels are 0")
    return classes


def _to_float32(x: np.ndarray, where: str) -> np.ndarray:
    """A float32 copy in C order, all of it finite."""
    with np.errstate(over="ignore"):  # what float32 cannot hold is reported as infinite
        floats = x.astype(np.float32, order="C")
    bad = ~np.isfinite(floats)
    if bad.any():
        first = tuple(int(i) for i in np.unravel_index(np.argmax(bad), bad.shape))
        count = f"{np.count_nonzero(bad)} NaN or infinite (as float32), the first at {first}"
        raise DataError(f"{where} data must be finite, {count}: drop or replace them")
    return floats
