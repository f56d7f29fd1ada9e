"""Read encoded images, such as PNG or JPEG, with the datasets library, without decoding them."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from deepdefense.app.data.optional_imports import import_optional
from deepdefense.evaluation.dataset import DataError

__all__ = ["EncodedImages", "EncodedSplits", "collect_images", "open_stream"]


class EncodedImages(NamedTuple):
    """Images that are not decoded yet, their labels [n], and the names of the classes.

    An image is a pair: its encoded bytes or the path of its file, and its name in error messages.
    """

    images: list[tuple[bytes | str, str]]
    labels: np.ndarray
    names: tuple[str, ...]


# The parts of the training set, and the parts of the test set. The second list may be empty.
EncodedSplits = tuple[list[EncodedImages], list[EncodedImages]]


def open_stream(kind: str, cache: str, data_files: Any, **options: Any) -> Any:
    """Open local files with the datasets library; return a streamed data set for each split.

    `kind` is one of the library's formats, such as parquet.
    """
    options |= {"data_files": data_files, "streaming": True, "cache_dir": cache}
    return import_optional("datasets").load_dataset(kind, **options)


def collect_images(split: Any, where: str, label: str | None = None) -> EncodedImages:
    """Return the encoded images and labels of a split, which `where` names in error messages.

    `label` is the column of labels. If it is None, the column is label or fine_label.
    """
    columns = list(split.features)
    image = next((name for name in ("image", "img") if name in columns), "")
    names = ("label", "fine_label") if label is None else (label,)
    label = next((name for name in names if name in columns), "")
    if not image or not label:
        expected = f"a column image or img and a column {' or '.join(names)}"
        raise DataError(f"{where} must have {expected}; there are: {', '.join(columns)}")
    images: list[tuple[bytes | str, str]] = []
    labels = [np.zeros(0, np.int64)]
    for batch in split.with_format("arrow").iter(batch_size=1000):  # other formats decode images
        for cell in batch.column(image).to_pylist():
            row = f"row {len(images)} of {where}"
            content = (cell.get("bytes") or cell.get("path")) if isinstance(cell, dict) else None
            if not content:
                raise DataError(f"{row}: the column {image} must hold {{bytes, path}} of an image")
            images.append((content, content if isinstance(content, str) else row))
        labels.append(np.asarray(batch.column(label)))
    class_names = getattr(split.features[label], "names", None) or ()
    return EncodedImages(images, np.concatenate(labels), tuple(class_names))
