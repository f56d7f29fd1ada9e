"""Data sets in memory, and the preprocessing that makes them of raw data."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
from einops import rearrange

from deepdefense.evaluation.raw_data import (
    DataError,
    RawData,
    hold_out,
    to_channels_first,
    to_class_indices,
    to_float32,
)

__all__ = [
    "MAX_CLASSES",
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

# Labels are less than this number, since each class has a logit and a name.
MAX_CLASSES = 1_000_000


def fingerprint(arrays: Iterable[np.ndarray]) -> str:
    """Return the first 16 hexadecimal digits of the SHA-256 of the dtypes, shapes and values."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(f"{array.dtype.str}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()[:16]


@dataclass(frozen=True, eq=False)
class Dataset:
    """A training set and a test set in memory, checked and preprocessed.

    `preprocess` makes a `Dataset` from `RawData`.
    """

    name: str
    x_train: np.ndarray  # float32 [n ...], images as [n c h w]
    y_train: np.ndarray  # int64 [n]; of two classes or more, and of 0..classes-1
    x_test: np.ndarray  # float32 [m ...]
    y_test: np.ndarray  # int64 [m]; of 0..classes-1
    classes: int  # the number of classes; some of them may have no example
    # For images, (x + mean) / scale is the picture to display. `mean` is float32 and has the shape
    # of an example. `scale` is 0 unless the examples are images with 1 or 3 channels.
    mean: np.ndarray
    scale: float
    preprocessing: str  # a phrase that describes the preprocessing, for reports
    class_names: tuple[str, ...]
    feature_names: tuple[str, ...] = ()  # of the columns of a table; otherwise empty
    # (offset, divisor), each a number or of the shape of an example: an example is
    # (raw - offset) / divisor, where raw is the example as the data hold it.
    units: tuple[np.ndarray, np.ndarray] = (np.zeros(()), np.ones(()))

    def fingerprint(self) -> str:
        """Return a hash of all examples and labels, which also changes if their order changes."""
        return fingerprint((self.x_train, self.y_train, self.x_test, self.y_test))

    def pixel_bounds(self) -> tuple[np.ndarray, np.ndarray] | None:
        """Return the bounds (-mean, 255 - mean) of the pixels after preprocessing.

        Return None if the examples are not images with pixels of 0 to 255.
        """
        return (-self.mean, np.float32(self.scale) - self.mean) if self.scale == 255 else None

    def shorten(self, examples: int | None = None, test: int | None = None) -> Dataset:
        """Keep only the first `examples` training examples and the first `test` test examples.

        None keeps all examples of that set.

        Raises:
            DataError: a class would lose all of its training examples.
        """
        labels, seen = self.y_train[:examples], np.unique(self.y_train)
        missing = len(seen) - len(np.unique(labels))
        if missing:
            raise DataError(
                f"the first {examples} training examples of {self.name} lack {missing} of its "
                f"{len(seen)} classes: take more of them"
            )
        return replace(
            self,
            x_train=self.x_train[:examples],
            y_train=labels,
            x_test=self.x_test[:test],
            y_test=self.y_test[:test],
        )

    @property
    def labels(self) -> np.ndarray:
        """The labels that at least one training or test example has, in increasing order."""
        return np.union1d(self.y_train, self.y_test)

    def with_classes(self, classes: int) -> Dataset:
        """Return the data set for a network with this number of classes, at least `self.classes`.

        The added classes have no examples. Each is named by its index.
        """
        added = map(str, range(self.classes, classes))
        return replace(self, classes=classes, class_names=(*self.class_names, *added))

    def renumber(self) -> Dataset:
        """Number the classes that have examples as 0..classes-1, and leave out the others.

        The classes keep their order and their names.
        """
        labels = self.labels
        return replace(
            self,
            y_train=np.searchsorted(labels, self.y_train),
            y_test=np.searchsorted(labels, self.y_test),
            classes=len(labels),
            class_names=tuple(self.class_names[label] for label in labels),
        )

    def name_missing(self, labels: np.ndarray) -> str:
        """Return the classes without a training example among `labels` as text; "" if none.

        At most nine classes are named.
        """
        missing = np.setdiff1d(labels, self.y_train).tolist()
        texts = [
            str(i) if (name := self.class_names[i]) == str(i) else f"{i} ({name})"
            for i in missing[:9]
        ]
        texts += [f"and {len(missing) - 9} more"] * (len(missing) > 9)
        return ", ".join(texts)

    def to_pictures(self, x: np.ndarray) -> np.ndarray | None:
        """Convert examples [n c h w] to pictures [n h w c] in 0..1 for display.

        Return None if the data set does not hold images.
        """
        if not self.scale:
            return None
        pictures: np.ndarray = rearrange((x + self.mean) / self.scale, "n c h w -> n h w c")
        return pictures


def dataset_from_arrays(
    x_train: np.ndarray, y_train: np.ndarray, x_test: np.ndarray, y_test: np.ndarray
) -> Dataset:
    """Make a data set from arrays that are already preprocessed; their values do not change.

    Raises:
        DataError: labels or shapes do not match the examples, or a value is not finite.
    """
    for name, x, y in (("training", x_train, y_train), ("test", x_test, y_test)):
        if x.ndim < 2 or x.dtype.kind not in "biuf":
            raise DataError(f"{name} examples must be numbers [n ...], got {x.dtype} {x.shape}")
        to_class_indices(y, len(x), f"{name} labels")
    raw = RawData(x_train.astype(np.float32), y_train, x_test.astype(np.float32), y_test)
    return preprocess("arrays", raw, ())


def preprocess(
    name: str,
    raw: RawData,
    names: tuple[str, ...],
    width: int = 255,
    *,
    standardize: bool = False,
) -> Dataset:
    """Check a training and a test set, convert them to float32, and centre pixels.

    Examples of dtype uint8 are pixels. They are scaled from 0..`width` to 0..255, and the mean
    training image is subtracted from them. Examples of other dtypes keep their values, or are
    standardised.

    Args:
        name: the name of the data set.
        raw: the training set and the test set.
        names: the names of the classes.
        width: the largest value that a raw pixel can have.
        standardize: subtract the mean from each feature, and divide it by its standard deviation,
            both of the training set. Features that are constant there are only centred.

    Raises:
        DataError: the data cannot be used.
    """
    if not (len(raw.x_train) and len(raw.x_test)):
        came = f"got {len(raw.x_train)} and {len(raw.x_test)}"
        raise DataError(f"{name}: expected examples for training and for testing, {came}")
    shape, test_shape = raw.x_train.shape[1:], raw.x_test.shape[1:]
    if shape != test_shape:
        raise DataError(f"{name}: training and test shapes must agree, got {shape}, {test_shape}")
    classes = _count_classes(name, raw)
    x_train, x_test = (
        to_float32(raw.x_train, f"{name}: train"),
        to_float32(raw.x_test, f"{name}: test"),
    )
    images = len(shape) == 3 and shape[0] in (1, 3)
    units: tuple[np.ndarray, np.ndarray] = (np.zeros(()), np.ones(()))
    if raw.x_train.dtype == np.uint8:
        if standardize:
            raise DataError(f"{name} holds pixels, which have one unit: leave out standardize")
        # float64 holds the sum of the integer pixels exactly, so the mean is the same on every
        # machine, whatever the order of the summation.
        unit = 255 / width
        mean = (unit * raw.x_train.mean(axis=0, dtype=np.float64)).astype(np.float32)
        x_train, x_test = (np.float32(unit) * x - mean for x in (x_train, x_test))
        units = (mean / unit, np.array(1 / unit))
        scale = 255.0 if images else 0.0
        pixels = "pixels 0..255" if width == 255 else f"pixels 0..{width} brought to 0..255,"
        preprocessing = f"{pixels} minus the training mean image"
    else:
        preprocessing = "taken as they are, nothing subtracted"
        if standardize:
            units = _measure_units(raw.x_train)
            x_train, x_test = (
                ((x - units[0]) / units[1]).astype(np.float32, order="C")
                for x in (raw.x_train, raw.x_test)
            )
            preprocessing = "each feature minus its mean, divided by its standard deviation"
        low, high = float(x_test.min()), float(x_test.max())
        mean = np.full(shape, -low, np.float32)
        scale = (high - low or 1.0) if images else 0.0
    return Dataset(
        name,
        x_train,
        raw.y_train,
        x_test,
        raw.y_test,
        classes,
        mean,
        scale,
        preprocessing + raw.note,
        (*names[:classes], *map(str, range(len(names), classes))),
        raw.feature_names,
        units,
    )


def _measure_units(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean and the standard deviation of each feature; 1 for a constant feature."""
    mean = x.mean(axis=0, dtype=np.float64)
    deviation = x.std(axis=0, dtype=np.float64)
    return mean, np.where(x.min(axis=0) < x.max(axis=0), deviation, 1.0)


def _count_classes(name: str, raw: RawData) -> int:
    """Return 1 + the largest label; raise `DataError` if it is too large, or all are equal."""
    if len(np.unique(raw.y_train)) < 2:
        only = f"all training labels are {raw.y_train[0]}"
        raise DataError(f"{name}: expected two classes or more, {only}")
    largest = int(max(raw.y_train.max(), raw.y_test.max()))
    if largest >= MAX_CLASSES:
        expected = f"labels must be classes 0, 1, ... below {MAX_CLASSES:,}"
        raise DataError(f"{name}: {expected}, got {largest}: relabel")
    return largest + 1
