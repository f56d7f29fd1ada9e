"""Images mirrored and moved at random: what may come out, how often, and where it is asked for."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import deepdefense as dd
from deepdefense.defenses.objective import Objective
from deepdefense.evaluation.dataset import RawData, preprocess
from deepdefense.seam.progress import Watcher
from deepdefense.seam.training import training_backend
from deepdefense.training.augmentation import augment, check_images
from deepdefense.training.loop import run_training
from deepdefense.training.monitor import Monitor
from deepdefense.training.recipe import Recipe
from deepdefense.zoo import initial_weights, mlp


def moves(image: Any, *, flip: bool, shift: int) -> set[bytes]:
    """Every image [c h w] that may come of one, written out pixel by pixel."""
    _, height, width = image.shape

    def inside(at: int, size: int) -> int:
        """Where a mirror at the border shows that place."""
        return abs(at) if at < size else 2 * (size - 1) - at

    found = set()
    for source in (image, image[:, :, ::-1]) if flip else (image,):
        for down in range(-shift, shift + 1):
            for right in range(-shift, shift + 1):
                rows = [inside(row + down, height) for row in range(height)]
                columns = [inside(column + right, width) for column in range(width)]
                found.add(source[:, rows][:, :, columns].tobytes())
    return found


drawn = given(
    size=st.tuples(*(st.integers(1, top) for top in (4, 3, 5, 5))),
    flip=st.booleans(),
    shift=st.integers(0, 3),
    channels_last=st.booleans(),
    seed=st.integers(0, 99),
)


@drawn
def test_each_image_is_one_of_its_moves(
    size: tuple[int, ...], flip: bool, shift: int, channels_last: bool, seed: int
) -> None:
    shift = min(shift, *(side - 1 for side in size[2:]))
    x = np.arange(np.prod(size), dtype=np.float32).reshape(size)
    before = x.copy()
    given_x = np.moveaxis(x, 1, 3) if channels_last else x
    random = np.random.default_rng(seed)
    found = augment(given_x, random, flip=flip, shift=shift, channels_last=channels_last)
    assert found.shape == given_x.shape
    assert found.dtype == x.dtype
    np.testing.assert_array_equal(x, before)
    for image, moved in zip(x, np.moveaxis(found, 3, 1) if channels_last else found, strict=True):
        assert moved.tobytes() in moves(image, flip=flip, shift=shift)


@drawn
def test_pixels_are_moved_and_their_mean_is_not(
    size: tuple[int, ...], flip: bool, shift: int, channels_last: bool, seed: int
) -> None:
    shift = min(shift, *(side - 1 for side in size[2:]))
    random = np.random.default_rng(seed)
    pixels = random.integers(0, 256, size).astype(np.float32)  # whole numbers: sums are exact
    mean = random.integers(0, 256, size[1:]).astype(np.float32)
    x = pixels - mean
    if channels_last:
        x, mean = np.moveaxis(x, 1, 3), np.moveaxis(mean, 0, 2)
    how: dict[str, Any] = {"flip": flip, "shift": shift, "channels_last": channels_last}
    found = augment(x, np.random.default_rng(seed), mean=mean, **how)
    assert found.dtype == np.float32
    whole = np.moveaxis(found + mean, 3, 1) if channels_last else found + mean
    for image, moved in zip(pixels, whole, strict=True):
        assert moved.tobytes() in moves(image, flip=flip, shift=shift)
    # One that is the same everywhere changes nothing, to the last bit.
    wild = (x * np.float32(np.pi)).astype(np.float32)
    uniform = np.full_like(mean, 0.1)
    expected = augment(wild, np.random.default_rng(seed), **how)
    alike = augment(wild, np.random.default_rng(seed), mean=uniform, **how)
    assert alike.tobytes() == expected.tobytes()


@pytest.mark.only("torch")
def test_training_sees_whole_images_moved() -> None:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (6, 1, 5, 5), dtype=np.uint8)
    labels = np.arange(6) % 2
    data = preprocess("pixels", RawData(pixels, labels, pixels, labels), ())
    seen: list[Any] = []

    class Watching(Objective):
        def points(self, model: Any, x: Any, y: Any) -> tuple[Any, ...]:
            seen.extend(np.asarray(x) + data.mean)
            return ()

    backend = training_backend("torch")
    network = mlp((1, 5, 5), 2, hidden=())
    model = backend.build(network, initial_weights(network, 0, 1.0))
    recipe = Recipe(epochs=4, lr=0.0, flip=True, shift=2)
    run_training(
        "moved",
        recipe.make_trainer(backend, model),
        Monitor.draw(backend, data, 0, {}),
        recipe=recipe,
        objective=Watching(),
        checkpoint=None,
        watcher=Watcher(),
    )
    expected = set().union(*(moves(image, flip=True, shift=2) for image in pixels))
    found = {np.rint(image).astype(np.uint8).tobytes() for image in seen}
    assert found <= expected
    assert len(found) > len(pixels)


def test_every_move_is_as_likely() -> None:
    x = np.broadcast_to(np.arange(16.0).reshape(1, 1, 4, 4), (9000, 1, 4, 4))
    found = Counter(map(bytes, augment(x, np.random.default_rng(0), flip=True, shift=1)))
    assert len(found) == 18
    assert min(found.values()) > 400  # of 500 expected, with a standard deviation of 22
    assert max(found.values()) < 600


@pytest.mark.parametrize(
    ("shape", "changes", "message"),
    [
        ((16,), {"flip": True}, r"are for images \[c h w\], the examples are of shape \[16\]"),
        ((8, 8), {"shift": 1, "channels_last": True}, r"are for images \[h w c\]"),
        ((1, 4, 9), {"shift": 4}, r"less than the sides of the images \[c h w\], got 4"),
        ((9, 3, 4), {"shift": 3, "channels_last": True}, r"sides of the images \[h w c\], got 3"),
    ],
)
def test_what_cannot_be_moved_is_told(
    shape: tuple[int, ...], changes: dict[str, Any], message: str
) -> None:
    recipe = Recipe(**changes)
    with pytest.raises(dd.InputError, match=message):
        check_images(shape, **recipe.augmentation)
    with pytest.raises(dd.InputError, match=message):
        augment(np.ones((2, *shape)), np.random.default_rng(0), **recipe.augmentation)
    check_images(shape, **Recipe().augmentation)


@pytest.mark.parametrize("shape", [(9, 5), (9, 2, 3), (9, 1, 4, 4), (0, 5)])
def test_examples_of_any_shape_stay_as_they_are_unless_it_is_asked(shape: tuple[int, ...]) -> None:
    x = np.ones(shape)
    assert augment(x, np.random.default_rng(0), **Recipe().augmentation) is x
