"""Decode images of any format to pixels, and make a data set of them."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from typing import Any

import numpy as np
from einops import repeat

from deepdefense.app.data.encoded_images import EncodedSplits
from deepdefense.app.data.optional_imports import convert_errors, import_optional
from deepdefense.evaluation.dataset import (
    DataError,
    Dataset,
    RawData,
    hold_out,
    preprocess,
    to_channels_first,
    to_class_indices,
)

__all__ = ["ImageSize", "decode_dataset"]

ImageSize = tuple[int, int]  # the height and the width of an image, in pixels


def decode_dataset(
    name: str,
    splits: EncodedSplits,
    seed: int,
    *,
    shape: tuple[int, ...] = (),
    size: ImageSize | None = None,
    standardize: bool = False,
) -> Dataset:
    """Decode the images of `splits`, and return them as a preprocessed data set.

    If `shape` is not empty, it is the shape [c h w] that every image must have. If `size` is given,
    all images are resized to it. If `splits` has no test set, one is drawn from the training set
    with `seed`.
    """
    train, test = splits
    files = train + test
    images = [image for file in files for image in file.images]
    x = to_channels_first(_decode_images(name, images, size))
    if shape not in ((), x.shape[1:]):
        raise DataError(f"{name}: expected images {shape}, the copy given has {x.shape[1:]}")
    labels = np.concatenate([file.labels for file in files])
    y = to_class_indices(labels, len(x), f"{name}: labels")
    n = sum(len(file.images) for file in train)
    raw = RawData(x[:n], y[:n], x[n:], y[n:]) if test else hold_out(x, y, seed)
    if size is not None:
        raw = raw._replace(note=f"; images resized to {size[0]} x {size[1]} pixels{raw.note}")
    return preprocess(name, raw, train[0].names, standardize=standardize)


def _decode_images(
    dataset: str, images: Sequence[tuple[bytes | str, str]], size: ImageSize | None
) -> np.ndarray:
    """Decode images to uint8 [n h w c], with c = 1 if all images are grey, else 3."""
    pil = import_optional("PIL.Image")
    decoded: np.ndarray = np.zeros((0, 1, 1, 1), np.uint8)
    for i, (content, name) in enumerate(images):
        pixels = _decode_image(pil, content, name, size)
        if i == 0:
            decoded = np.empty((len(images), *pixels.shape), np.uint8)
        if pixels.shape[:2] != decoded.shape[1:3]:
            sizes = f"{images[0][1]} is {decoded.shape[1:3]}, {name} is {pixels.shape[:2]}"
            remedy = "give --resize N or HEIGHTxWIDTH, or resize the files"
            raise DataError(f"{dataset}: images must have one height and width, {sizes}: {remedy}")
        if pixels.shape[2] > decoded.shape[3]:  # the first colour image after grey ones
            decoded = repeat(decoded, "n h w 1 -> n h w c", c=pixels.shape[2])
        decoded[i] = pixels
    return decoded


def _decode_image(pil: Any, content: bytes | str, name: str, size: ImageSize | None) -> np.ndarray:
    """Decode one image, rotated as its EXIF metadata specify, to uint8 [h w c] with c = 1 or 3.

    If `size` is given, resize the image to it.
    """
    source = content if isinstance(content, str) else BytesIO(content)
    with convert_errors(f"image {name} could not be read"), pil.open(source) as image:
        if "exif" in image.info:  # avoids exif_transpose, which is slow, where not needed
            import_optional("PIL.ImageOps").exif_transpose(image, in_place=True)
        if image.mode[0] in "IF":  # 16 or 32 bits, which RGB would silently clip
            came = f"{name} has more (mode {image.mode})"
            raise DataError(f"images must have 8 bits a pixel, {came}: convert it, or give .npz")
        if image.mode != "L":
            # Pillow warns if a palette with transparent colours is converted to RGB directly.
            image = (image.convert("RGBA") if image.mode == "P" else image).convert("RGB")
        if size is not None and image.size != size[::-1]:
            image = image.resize(size[::-1], pil.Resampling.BILINEAR)
        pixels = np.asarray(image)
        return pixels if pixels.ndim == 3 else pixels[..., None]
