"""Random changes of training images that keep their labels."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import sliding_window_view

from deepdefense.errors import InputError

__all__ = ["augment", "check_images"]

Images = npt.NDArray[Any]


def check_images(shape: tuple[int, ...], *, flip: bool, shift: int, channels_last: bool) -> None:
    """Raise `InputError` unless images of that shape, without the batch, can be so changed."""
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
    """Each image mirrored left to right or not, and moved by up to `shift` pixels either way.

    Every move is as likely as another, and so is a mirror image; an image goes on beyond its
    border as in a mirror, so that no value is invented. What was subtracted from pixels stays
    where it is: of pixels v and their `mean` m, x = v - m, a move T gives T(v) - m, which is no
    T(x) unless m is the same everywhere. Without either, examples of any shape are returned as
    they are.

    Args:
        x: images [b c h w], or [b h w c] with `channels_last`.
        random: what decides.
        flip: whether to mirror half of them.
        shift: how far to move them at most.
        channels_last: their layout.
        mean: what was subtracted from their pixels, [c h w] or [h w c]; None: nothing, or the same
            everywhere.

    Raises:
        InputError: these are no such images, or are smaller than the shift.

    >>> moved = augmented(np.arange(3.0).reshape(1, 1, 1, 3), np.random.default_rng(0), flip=True)
    >>> sorted(moved.ravel().tolist())
    [0.0, 1.0, 2.0]
    """
    if not (flip or shift):
        return x
    check_images(x.shape[1:], flip=flip, shift=shift, channels_last=channels_last)
    axes = (1, 2) if channels_last else (2, 3)
    mirrored = random.random(len(x)) < 0.5 if flip else np.zeros(len(x), bool)
    down, right = random.integers(0, 2 * shift + 1, size=(2, len(x))) if shift else (0, 0)

    def moved(images: Images) -> Images:
        found = np.moveaxis(images, axes, (2, 3))
        found = np.where(mirrored[:, None, None, None], found[..., ::-1], found)
        beyond = np.pad(found, [(0, 0), (0, 0), (shift, shift), (shift, shift)], mode="reflect")
        windows = sliding_window_view(beyond, found.shape[2:], axis=(2, 3))
        found = windows[np.arange(len(x)), :, down, right]
        return np.ascontiguousarray(np.moveaxis(found, (2, 3), axes))

    if mean is None:
        return moved(x)
    still = np.broadcast_to(mean, x.shape)
    moves: Images = moved(still) - still  # exactly 0 for a mean that is the same everywhere
    return np.add(moved(x), moves)
