"""Augment training images by random left-to-right flips and random shifts."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import sliding_window_view

from deepdefense.errors import InputError

__all__ = ["augment", "check_images"]

Images = npt.NDArray[Any]


def check_images(shape: tuple[int, ...], *, flip: bool, shift: int, channels_last: bool) -> None:
    """Raise `InputError` unless `augment` can flip and shift examples of the given shape.

    `shape` is the shape of a single example, without the batch axis.
    """
    if not (flip or shift):
        return
    layout = "[h w c]" if channels_last else "[c h w]"
    if len(shape) != 3:
        raise InputError(
            f"flip and shift are for images {layout}, the examples are of shape {list(shape)}: "
            "leave both out"
        )
    size = shape[:2] if channels_last else shape[1:]
    if shift >= min(size):
        raise InputError(
            f"shift must be less than the sides of the images {layout}, "
            f"got {shift} for shape {list(shape)}"
        )


def augment(
    x: Images,
    random: np.random.Generator,
    *,
    flip: bool = False,
    shift: int = 0,
    channels_last: bool = False,
    mean: Images | None = None,
) -> Images:
    """Return the images, each flipped left to right at random and shifted by a random distance.

    Pixels that enter at a border repeat the image in mirror order.

    Preprocessing may have subtracted a mean image m from the pixel values v, so that x = v - m. The
    flip and shift T then applies to v, and not to m:

        result = T(v) - m = T(x) + (T(m) - m)

    Args:
        x: images [b c h w], or [b h w c] with `channels_last`. With neither `flip` nor `shift`,
            examples of any shape.
        random: the generator that draws the flips and the distances.
        flip: whether to flip each image with probability 1/2.
        shift: the largest distance in pixels. The distance along each axis is drawn uniformly from
            the whole numbers -shift to shift.
        channels_last: whether the layout is [b h w c].
        mean: the mean image m, [c h w] or [h w c]. None: preprocessing has subtracted nothing, or
            the same number from every pixel.

    Raises:
        InputError: the examples are not images of the given layout, or `shift` is not less than
            their height and width.

    >>> images = np.arange(3.0).reshape(1, 1, 1, 3)
    >>> augmented = augment(images, np.random.default_rng(0), flip=True)
    >>> sorted(augmented.ravel().tolist())
    [0.0, 1.0, 2.0]
    """
    if not (flip or shift):
        return x
    check_images(x.shape[1:], flip=flip, shift=shift, channels_last=channels_last)
    axes = (1, 2) if channels_last else (2, 3)
    mirrored = random.random(len(x)) < 0.5 if flip else np.zeros(len(x), bool)
    down, right = random.integers(0, 2 * shift + 1, size=(2, len(x))) if shift else (0, 0)

    def transform(images: Images) -> Images:
        images = np.moveaxis(images, axes, (2, 3))
        images = np.where(mirrored[:, None, None, None], images[..., ::-1], images)
        padded = np.pad(images, [(0, 0), (0, 0), (shift, shift), (shift, shift)], mode="reflect")
        windows = sliding_window_view(padded, images.shape[2:], axis=(2, 3))
        moved = windows[np.arange(len(x)), :, down, right]
        return np.ascontiguousarray(np.moveaxis(moved, (2, 3), axes))

    if mean is None:
        return transform(x)
    means = np.broadcast_to(mean, x.shape)
    correction: Images = transform(means) - means  # exactly 0 for a constant mean image
    return np.add(transform(x), correction)
