"""Images: from the hub, from parquet files and from folders, decoded."""

from __future__ import annotations

import glob
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from einops import repeat

from deepdefense.app.data.reading import optional, quiet, reading
from deepdefense.evaluation.dataset import (
    DataError,
    Dataset,
    RawData,
    hold_out,
    preprocess,
    to_channels_first,
    to_class_indices,
)

__all__ = ["HUB", "from_images", "image_folder", "parquet", "published"]

HUB = {"mnist": ("ylecun/mnist", (1, 28, 28)), "cifar10": ("uoft-cs/cifar10", (3, 32, 32))}


class Encoded(NamedTuple):
    """Images not decoded yet: (bytes or path, name for errors), and their labels [n]."""

    images: list[tuple[bytes | str, str]]
    labels: np.ndarray
    names: tuple[str, ...]


Parts = tuple[list[Encoded], list[Encoded]]  # training and test; without the latter, to split


def published(name: str, data_dir: str | Path | None) -> Parts:
    """A set of `HUB`, from a local copy or from the hub."""
    if data_dir is not None:
        folder = Path(data_dir).expanduser().resolve()
        return parquet(folder / name if (folder / name).is_dir() else folder)
    failed = f"{name}: the Hugging Face hub could not be reached or read"
    hint = "; --data-dir takes a local copy, a folder with train*.parquet and test*.parquet"
    with quiet(), reading(failed, hint):
        # Into the hub's own cache, as anywhere: kept for the next run and for other programs.
        splits = optional("datasets").load_dataset(HUB[name][0])
        train, test = (_encoded(splits[split], f"{name} {split}") for split in ("train", "test"))
    return [train], [test]


def parquet(path: Path) -> Parts:
    """A .parquet file, or a folder of train*.parquet and test*.parquet, in the hub's schema."""
    groups = [[path], []]
    if not path.is_file():
        groups = [sorted(path.glob(f"{split}*.parquet")) for split in ("train", "test")]
        if not all(groups):
            there = ", ".join(sorted(file.name for file in path.glob("*"))[:9]) or "nothing"
            came = f"it has {there}" if path.is_dir() else "it is none or does not exist"
            raise DataError(f"{path} must be a folder of train*.parquet and test*.parquet, {came}")
    parts: Parts = ([], [])
    with quiet() as cache:
        for group, part in zip(groups, parts, strict=True):
            for file in group:  # one by one, so that an error names the file
                with reading(f"{file} could not be read"):
                    # Its own choice of batches breaks on an empty file.
                    files = _stream("parquet", cache, glob.escape(str(file)), batch_size=1000)
                    part.append(_encoded(files["train"], str(file)))
    return parts


def image_folder(root: Path) -> Parts:
    """Images in a sub-folder for each class, or in train/ and a held-out folder of these."""
    held = [d for d in ("test", "val", "validation") if (root / d).is_dir()]
    # Patterns of our own: the library's take the name of a split from names of files as well.
    patterns = {"train": "*/**"}
    if held and (root / "train").is_dir():
        patterns = {"train": "train/*/**", "test": f"{held[0]}/*/**"}
    classes = "a sub-folder of images for each class, two or more and all at one depth"
    expected = f"{root} must hold {classes}, or train and test folders of these"
    with quiet() as cache, reading(expected):
        splits = _stream("imagefolder", cache, patterns, data_dir=glob.escape(str(root)))
        if "label" not in splits["train"].features:
            raise DataError(f"{expected}; found no images or no classes")
        parts = [_encoded(splits[split], f"{root} ({split})") for split in patterns]
    return parts[:1], parts[1:]


def _stream(kind: str, cache: str, data_files: Any, **options: Any) -> Any:
    """The splits of local files, streamed: nothing is copied to the disk, and it is faster."""
    options |= {"data_files": data_files, "streaming": True, "cache_dir": cache}
    return optional("datasets").load_dataset(kind, **options)


def _encoded(split: Any, where: str) -> Encoded:
    """The images and labels of a split of the datasets library, not decoded."""
    columns = list(split.features)
    image = next((name for name in ("image", "img") if name in columns), "")
    label = next((name for name in ("label", "fine_label") if name in columns), "")
    if not image or not label:
        expected = "a column image or img and a column label or fine_label"
        raise DataError(f"{where} must have {expected}; there are: {', '.join(columns)}")
    images: list[tuple[bytes | str, str]] = []
    labels = [np.zeros(0, np.int64)]
    for batch in split.with_format("arrow").iter(batch_size=1000):  # as arrow: not decoded
        for cell in batch.column(image).to_pylist():
            row = f"row {len(images)} of {where}"
            content = (cell.get("bytes") or cell.get("path")) if isinstance(cell, dict) else None
            if not content:
                raise DataError(f"{row}: the column {image} must hold {{bytes, path}} of an image")
            images.append((content, content if isinstance(content, str) else row))
        labels.append(np.asarray(batch.column(label)))
    names = getattr(split.features[label], "names", None) or ()
    return Encoded(images, np.concatenate(labels), tuple(names))


def from_images(name: str, parts: Parts, seed: int, shape: tuple[int, ...] = ()) -> Dataset:
    """A set of encoded images, of `shape` if given; without a test set one is split off."""
    train, test = parts
    x = to_channels_first(_decode(name, [image for part in train + test for image in part.images]))
    if shape not in ((), x.shape[1:]):
        raise DataError(f"{name}: expected images {shape}, the copy given has {x.shape[1:]}")
    y = to_class_indices(
        np.concatenate([part.labels for part in train + test]), len(x), f"{name}: labels"
    )
    n = sum(len(part.images) for part in train)
    raw = RawData(x[:n], y[:n], x[n:], y[n:]) if test else hold_out(x, y, seed)
    return preprocess(name, raw, train[0].names)


def _decode(dataset: str, images: Sequence[tuple[bytes | str, str]]) -> np.ndarray:
    """Images as uint8 [n h w c]: c is 1 if all of them are grey (mode L), else 3."""
    pil = optional("PIL.Image")
    out: np.ndarray = np.zeros((0, 1, 1, 1), np.uint8)
    for i, (content, name) in enumerate(images):
        pixels = _pixels(pil, content, name)
        if i == 0:
            out = np.empty((len(images), *pixels.shape), np.uint8)
        if pixels.shape[:2] != out.shape[1:3]:
            sizes = f"{images[0][1]} is {out.shape[1:3]}, {name} is {pixels.shape[:2]}"
            raise DataError(f"{dataset}: images must have one height and width, {sizes}: resize")
        if pixels.shape[2] > out.shape[3]:
            out = repeat(out, "n h w 1 -> n h w c", c=pixels.shape[2])  # the first in colour
        out[i] = pixels
    return out


def _pixels(pil: Any, content: bytes | str, name: str) -> np.ndarray:
    """One image, upright: uint8 [h w 1] if it is grey (mode L), else [h w 3]."""
    source = content if isinstance(content, str) else BytesIO(content)
    with reading(f"image {name} could not be read"), pil.open(source) as image:
        if "exif" in image.info:  # asking every image for it takes a quarter of the time
            optional("PIL.ImageOps").exif_transpose(image, in_place=True)
        if image.mode[0] in "IF":  # going to RGB would clip their values without a word
            came = f"{name} has more (mode {image.mode})"
            raise DataError(f"images must have 8 bits a pixel, {came}: convert it, or give .npz")
        if image.mode == "L":
            return np.asarray(image)[..., None]
        # By RGBA, as Pillow warns of transparent palettes on the direct way.
        return np.asarray((image.convert("RGBA") if image.mode == "P" else image).convert("RGB"))
