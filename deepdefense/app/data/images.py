"""Load images from the Hugging Face hub, from parquet files and from folders, and decode them."""

from __future__ import annotations

import glob
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from einops import repeat

from deepdefense.app.data.optional_imports import convert_errors, import_optional, silence_datasets
from deepdefense.evaluation.dataset import (
    DataError,
    Dataset,
    RawData,
    hold_out,
    preprocess,
    to_channels_first,
    to_class_indices,
)

__all__ = [
    "HUB_SETS",
    "decode_dataset",
    "load_image_folder",
    "load_parquet",
    "load_published",
]

# The name on the Hugging Face hub, and the shape of an image.
HUB_SETS = {
    "mnist": ("ylecun/mnist", (1, 28, 28)),
    "cifar10": ("uoft-cs/cifar10", (3, 32, 32)),
}


class EncodedImages(NamedTuple):
    """Images that are not decoded yet: (bytes or path, name for errors); and their labels [n]."""

    images: list[tuple[bytes | str, str]]
    labels: np.ndarray
    names: tuple[str, ...]


# The files of the training set and those of the test set; no test files: split one off.
EncodedSplits = tuple[list[EncodedImages], list[EncodedImages]]


def load_published(name: str, data_dir: str | Path | None) -> EncodedSplits:
    """Load a data set of `HUB_SETS` from a local copy or from the hub."""
    if data_dir is not None:
        folder = Path(data_dir).expanduser().resolve()
        return load_parquet(folder / name if (folder / name).is_dir() else folder)
    failed = f"{name}: the Hugging Face hub could not be reached or read"
    hint = "; --data-dir takes a local copy, a folder with train*.parquet and test*.parquet"
    with silence_datasets(), convert_errors(failed, hint):
        # Into the hub's own cache, where the next run and other programs find it.
        splits = import_optional("datasets").load_dataset(HUB_SETS[name][0])
        train, test = (_collect(splits[split], f"{name} {split}") for split in ("train", "test"))
    return [train], [test]


def load_parquet(path: Path) -> EncodedSplits:
    """Load a .parquet file in the hub's schema, or a folder of train*.parquet and test*.parquet."""
    groups = [[path], []]
    if not path.is_file():
        groups = [sorted(path.glob(f"{split}*.parquet")) for split in ("train", "test")]
        if not all(groups):
            names = ", ".join(sorted(file.name for file in path.glob("*"))[:9]) or "nothing"
            came = f"it has {names}" if path.is_dir() else "it is none or does not exist"
            raise DataError(f"{path} must be a folder of train*.parquet and test*.parquet, {came}")
    splits: EncodedSplits = ([], [])
    with silence_datasets() as cache:
        for group, split in zip(groups, splits, strict=True):
            for file in group:  # one by one, so that an error names the file
                with convert_errors(f"{file} could not be read"):
                    # The library's own choice of a batch size fails on an empty file.
                    files = _stream("parquet", cache, glob.escape(str(file)), batch_size=1000)
                    split.append(_collect(files["train"], str(file)))
    return splits


def load_image_folder(root: Path) -> EncodedSplits:
    """Load images in a sub-folder for each class, or in train/ and a test folder of these."""
    held_out = [name for name in ("test", "val", "validation") if (root / name).is_dir()]
    # Explicit patterns: the library's own also take the name of a split from names of files.
    patterns = {"train": "*/**"}
    if held_out and (root / "train").is_dir():
        patterns = {"train": "train/*/**", "test": f"{held_out[0]}/*/**"}
    classes = "a sub-folder of images for each class, two or more and all at one depth"
    expected = f"{root} must hold {classes}, or train and test folders of these"
    with silence_datasets() as cache, convert_errors(expected):
        splits = _stream("imagefolder", cache, patterns, data_dir=glob.escape(str(root)))
        if "label" not in splits["train"].features:
            raise DataError(f"{expected}; found no images or no classes")
        parts = [_collect(splits[split], f"{root} ({split})") for split in patterns]
    return parts[:1], parts[1:]


def _stream(kind: str, cache: str, data_files: Any, **options: Any) -> Any:
    """Return the splits of local files as streams, which copy nothing to the disk."""
    options |= {"data_files": data_files, "streaming": True, "cache_dir": cache}
    return import_optional("datasets").load_dataset(kind, **options)


def _collect(split: Any, where: str) -> EncodedImages:
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


def decode_dataset(
    name: str, splits: EncodedSplits, seed: int, shape: tuple[int, ...] = ()
) -> Dataset:
    """Decode and preprocess images, of `shape` if given; split a test set off if there is none."""
    train, test = splits
    files = train + test
    x = to_channels_first(_decode_images(name, [image for file in files for image in file.images]))
    if shape not in ((), x.shape[1:]):
        raise DataError(f"{name}: expected images {shape}, the copy given has {x.shape[1:]}")
    labels = np.concatenate([file.labels for file in files])
    y = to_class_indices(labels, len(x), f"{name}: labels")
    n = sum(len(file.images) for file in train)
    raw = RawData(x[:n], y[:n], x[n:], y[n:]) if test else hold_out(x, y, seed)
    return preprocess(name, raw, train[0].names)


def _decode_images(dataset: str, images: Sequence[tuple[bytes | str, str]]) -> np.ndarray:
    """Decode images to uint8 [n h w c]; c is 1 if all of them are grey (mode L), else 3."""
    pil = import_optional("PIL.Image")
    decoded: np.ndarray = np.zeros((0, 1, 1, 1), np.uint8)
    for i, (content, name) in enumerate(images):
        pixels = _decode_image(pil, content, name)
        if i == 0:
            decoded = np.empty((len(images), *pixels.shape), np.uint8)
        if pixels.shape[:2] != decoded.shape[1:3]:
            sizes = f"{images[0][1]} is {decoded.shape[1:3]}, {name} is {pixels.shape[:2]}"
            raise DataError(f"{dataset}: images must have one height and width, {sizes}: resize")
        if pixels.shape[2] > decoded.shape[3]:  # the first image in colour
            decoded = repeat(decoded, "n h w 1 -> n h w c", c=pixels.shape[2])
        decoded[i] = pixels
    return decoded


def _decode_image(pil: Any, content: bytes | str, name: str) -> np.ndarray:
    """Decode one image, upright, to uint8 [h w 1] if it is grey (mode L), else [h w 3]."""
    source = content if isinstance(content, str) else BytesIO(content)
    with convert_errors(f"image {name} could not be read"), pil.open(source) as image:
        if "exif" in image.info:  # calling exif_transpose for every image is slow
            import_optional("PIL.ImageOps").exif_transpose(image, in_place=True)
        if image.mode[0] in "IF":  # a conversion to RGB would silently clip the values
            came = f"{name} has more (mode {image.mode})"
            raise DataError(f"images must have 8 bits a pixel, {came}: convert it, or give .npz")
        if image.mode == "L":
            return np.asarray(image)[..., None]
        # Convert palettes through RGBA: Pillow warns if a transparent one becomes RGB directly.
        return np.asarray((image.convert("RGBA") if image.mode == "P" else image).convert("RGB"))
