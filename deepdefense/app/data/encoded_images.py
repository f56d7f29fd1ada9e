"""Images as files hold them, before decoding, and how the datasets library streams them."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from deepdefense.app.data.optional_imports import import_optional
from deepdefense.evaluation.dataset import DataError

__all__ = ["EncodedImages", "EncodedSplits", "collect_images", "open_stream"]


class EncodedImages(NamedTuple):
    """Images that are not decoded yet: (bytes or path, name for errors); and their labels [n]."""

    images: list[tuple[bytes | str, str]]
    labels: np.ndarray
    names: tuple[str, ...]


# The files of the training set and those of the test set; no test files: split one off.
EncodedSplits = tuple[list[EncodedImages], list[EncodedImages]]


def open_stream(kind: str, cache: str, data_files: Any, **options: Any) -> Any:
    """Return the splits of local files as streams, which copy nothing to the disk."""
    options |= {"data_files": data_files, "streaming": True, "cache_dir": cache}
    return import_optional("datasets").load_dataset(kind, **options)


def collect_images(split: Any, where: str) -> EncodedImages:
    """Collect the encoded images and the labels of a split of the datasets library."""
    columns = list(split.features)
    image = next((name for name in ("image", "img") if name in columns), "")
    label = next((name for name in ("label", "fine_label") if name in columns), "")
    if not image or not label:
        expected = "a column image or img and a column label or fine_label"
        raise DataError(f"{where} must have {expected}; there are: {', '.join(columns)}")
    images: list[tuple[bytes | str, str]] = []
    labels = [np.zeros(0, np.int64)]
    for batch in split.with_format("arrow").iter(batch_size=1000):  # arrow does not decode images
        for cell in batch.column(image).to_pylist():
            row = f"row {len(images)} of {where}"
            content = (cell.get("bytes") or cell.get("path")) if isinstance(cell, dict) else None
            if not content:
                raise DataError(f"{row}: the column {image} must hold {{bytes, path}} of an image")
            images.append((content, content if isinstance(content, str) else row))
        labels.append(np.asarray(batch.column(label)))
    names = getattr(split.features[label], "names", None) or ()
    return EncodedImages(images, np.concatenate(labels), tuple(names))
