"""Tests of random flips and shifts of images: which results occur, and how often."""

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
from deepdefense.seam.training_contract import training_backend
from deepdefense.training.augmentation import augment, check_images
from deepdefense.training.loop import run_training
from deepdefense.training.monitor import Monitor
from deepdefense.training.recipe import Recipe
from deepdefense.zoo import initial_weights, mlp


def list_moves(image: Any, *, flip: bool, shift: int) -> set[bytes]:
    """Return all flipped and shifted versions of an image [c h w], computed pixel by pixel."""
    _, height, width = image.shape

    def reflect(at: int, size: int) -> int:
        """Return the index inside the image that reflection at the borders leads to."""
        return abs(at) if at < size else 2 * (size - 1) - at

    versions = set()
    for source in (image, image[:, :, ::-1]) if flip else (image,):
        for down in range(-shift, shift + 1):
            for right in range(-shift, shift + 1):
                rows = [reflect(row + down, height) for row in range(height)]
                columns = [reflect(column + right, width) for column in range(width)]
                versions.add(source[:, rows][:, :, columns].tobytes())
    return versions


draw_cases = given(
    size=st.tuples(*(st.integers(1, top) for top in (4, 3, 5, 5))),
    flip=st.booleans(),
    shift=st.integers(0, 3),
    channels_last=st.booleans(),
    seed=st.integers(0, 99),
)


@draw_cases
def test_each_result_is_a_possible_move(
    size: tuple[int, ...], flip: bool, shift: int, channels_last: bool, seed: int
) -> None:
    shift = min(shift, *(side - 1 for side in size[2:]))
    x = np.arange(np.prod(size), dtype=np.float32).reshape(size)
    before = x.copy()
    batch = np.moveaxis(x, 1, 3) if channels_last else x
    random = np.random.default_rng(seed)
    result = augment(batch, random, flip=flip, shift=shift, channels_last=channels_last)
    assert result.shape == batch.shape
    assert result.dtype == x.dtype
    np.testing.assert_array_equal(x, before)
    for image, moved in zip(x, np.moveaxis(result, 3, 1) if channels_last else result, strict=True):
        assert moved.tobytes() in list_moves(image, flip=flip, shift=shift)


@draw_cases
def test_pixels_move_and_the_subtracted_mean_does_not(
    size: tuple[int, ...], flip: bool, shift: int, channels_last: bool, seed: int
) -> None:
    shift = min(shift, *(side - 1 for side in size[2:]))
    random = np.random.default_rng(seed)
    pixels = random.integers(0, 256, size).astype(np.float32)  # sums of whole numbers are exact
    mean = random.integers(0, 256, size[1:]).astype(np.float32)
    x = pixels - mean
    if channels_last:
        x, mean = np.moveaxis(x, 1, 3), np.moveaxis(mean, 0, 2)
    settings: dict[str, Any] = {"flip": flip, "shift": shift, "channels_last": channels_last}
    result = augment(x, np.random.default_rng(seed), mean=mean, **settings)
    assert result.dtype == np.float32
    whole = np.moveaxis(result + mean, 3, 1) if channels_last else result + mean
    for image, moved in zip(pixels, whole, strict=True):
        assert moved.tobytes() in list_moves(image, flip=flip, shift=shift)
    # Subtracting the same mean from all pixels changes no bit of the result.
    irrational = (x * np.float32(np.pi)).astype(np.float32)
    uniform = np.full_like(mean, 0.1)
    expected = augment(irrational, np.random.default_rng(seed), **settings)
    result = augment(irrational, np.random.default_rng(seed), mean=uniform, **settings)
    assert result.tobytes() == expected.tobytes()


@pytest.mark.only("torch")
def test_training_examples_are_moved_images() -> None:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (6, 1, 5, 5), dtype=np.uint8)
    labels = np.arange(6) % 2
    data = preprocess("pixels", RawData(pixels, labels, pixels, labels), ())
    seen: list[Any] = []

    class RecordingObjective(Objective):
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
        objective=RecordingObjective(),
        checkpoint=None,
        watcher=Watcher(),
    )
    expected = set().union(*(list_moves(image, flip=True, shift=2) for image in pixels))
    recorded = {np.rint(image).astype(np.uint8).tobytes() for image in seen}
    assert recorded <= expected
    assert len(recorded) > len(pixels)


def test_all_moves_are_equally_likely() -> None:
    x = np.broadcast_to(np.arange(16.0).reshape(1, 1, 4, 4), (9000, 1, 4, 4))
    counts = Counter(map(bytes, augment(x, np.random.default_rng(0), flip=True, shift=1)))
    assert len(counts) == 18
    assert min(counts.values()) > 400  # each count has mean 500 and standard deviation 22
    assert max(counts.values()) < 600


@pytest.mark.parametrize(
    ("shape", "changes", "message"),
    [
        ((16,), {"flip": True}, r"are for images \[c h w\], the examples are of shape \[16\]"),
        ((8, 8), {"shift": 1, "channels_last": True}, r"are for images \[h w c\]"),
        ((1, 4, 9), {"shift": 4}, r"less than the sides of the images \[c h w\], got 4"),
        ((9, 3, 4), {"shift": 3, "channels_last": True}, r"sides of the images \[h w c\], got 3"),
    ],
)
def test_examples_that_cannot_be_moved_raise(
    shape: tuple[int, ...], changes: dict[str, Any], message: str
) -> None:
    recipe = Recipe(**changes)
    with pytest.raises(dd.InputError, match=message):
        check_images(shape, **recipe.augmentation)
    with pytest.raises(dd.InputError, match=message):
        augment(np.ones((2, *shape)), np.random.default_rng(0), **recipe.augmentation)
    check_images(shape, **Recipe().augmentation)


@pytest.mark.parametrize("shape", [(9, 5), (9, 2, 3), (9, 1, 4, 4), (0, 5)])
def test_default_settings_return_the_examples_unchanged(shape: tuple[int, ...]) -> None:
    x = np.ones(shape)
    assert augment(x, np.random.default_rng(0), **Recipe().augmentation) is x
