"""Tests of loading arrays from .npz files."""

import pathlib
from pathlib import Path

import numpy as np
import pytest

from deepdefense.app.data import load_data
from deepdefense.evaluation.dataset import DataError
from files import assert_says, write_npz


def make_split(n: int = 6, **changes):
    """Return the arrays of a valid file with a test set; `changes` replace some of them."""
    x, y = np.random.default_rng(0).normal(size=(n, 3)), np.arange(n) % 2
    return {"x_train": x, "y_train": y, "x_test": x + 1, "y_test": y} | changes


def test_npz_floats_are_taken_as_they_are(tmp_path):
    keys = make_split()
    data = load_data(write_npz(tmp_path / "mine.npz", **keys))
    assert data.name == "mine"
    np.testing.assert_array_equal(data.x_train, keys["x_train"].astype(np.float32))
    np.testing.assert_array_equal(data.x_test, keys["x_test"].astype(np.float32))
    np.testing.assert_array_equal(data.y_test, keys["y_test"])
    assert (data.scale, data.classes, data.class_names) == (0.0, 2, ("0", "1"))
    assert data.to_pictures(data.x_test) is None
    assert data.preprocessing == "taken as they are, nothing subtracted"


@pytest.mark.parametrize(
    ("shape", "expected", "scale"),
    [
        ((6, 4, 5), (1, 4, 5), 255),
        ((6, 4, 5, 1), (1, 4, 5), 255),
        ((6, 4, 5, 3), (3, 4, 5), 255),
        ((6, 3, 4, 5), (3, 4, 5), 255),
        ((6, 20), (20,), 0),  # pixels, but not of a picture
        ((6, 4, 5, 7), (4, 5, 7), 0),
    ],
)
def test_npz_uint8_are_pixels(tmp_path, shape, expected, scale):
    x = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    keys = make_split(x_train=x, x_test=x[:2], y_test=np.array([0, 1]))
    data = load_data(write_npz(tmp_path / "a.npz", **keys))
    assert data.x_train.shape == (6, *expected)
    assert data.x_train.flags.c_contiguous
    assert data.scale == scale
    moved = np.moveaxis(x, -1, 1) if shape[-1] in (1, 3) and len(shape) == 4 else x
    moved = moved.reshape(6, *expected)
    np.testing.assert_allclose(data.mean, moved.mean(0), rtol=1e-6)
    np.testing.assert_allclose(data.x_train + data.mean, moved, atol=1e-4)
    np.testing.assert_allclose(data.x_test + data.mean, moved[:2], atol=1e-4)
    assert data.preprocessing.startswith("pixels 0..255 minus the training mean image")


def test_npz_prefers_the_split_it_has(tmp_path):
    keys = make_split(x=np.zeros((3, 1)), y=np.zeros(3, int))
    assert load_data(write_npz(tmp_path / "a.npz", **keys)).x_train.shape == (6, 3)


X, Y = make_split()["x_train"], make_split()["y_train"]


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"x": X, "z": Y}, ["x_train, y_train, x_test, y_test, or x, y", "has x, z"]),
        (
            {"X": X, "labels": Y},
            ["x, y (examples [n ...] and integer labels [n])", "has X, labels: rename"],
        ),
        ({}, ["has none"]),
        (make_split(y_train=Y * 10**9), ["classes 0, 1, ... below 1,000,000", "got 1000000000"]),
        (make_split(y_train=Y[:-1]), ["y_train", "6 integers", "(5,)"]),
        (make_split(y_test=Y[:, None]), ["y_test", "(6, 1)"]),
        (make_split(y_train=Y.astype(float)), ["y_train", "integers", "float64"]),
        (make_split(y_train=Y - 1), ["y_train", "negative", "-1 at index 0"]),
        (make_split(y_train=Y * 0, y_test=Y * 0), ["two classes or more"]),
        (make_split(y_train=Y * 0 + 3), ["two classes or more", "all training labels are 3"]),
        (make_split(x_test=X[:0], y_test=Y[:0]), ["expected examples", "6 and 0"]),
        (make_split(x_train=X[:0], y_train=Y[:0]), ["expected examples", "0 and 6"]),
        ({"x": X[:0], "y": Y[:0]}, ["expected examples"]),
        # With one example per class, none can be held out.
        ({"x": X[:2], "y": Y[:2]}, ["expected examples", "2 and 0"]),
        (make_split(x_test=X[:, :2]), ["shapes must agree", "(3,), (2,)"]),
        (
            make_split(x_test=np.zeros((6, 3), np.uint8)),
            ["uint8 or neither", "float64 and uint8"],
        ),
        (make_split(x_train=np.arange(6.0)), ["x_train", "[n ...]", "(6,)"]),
        (make_split(x_train=X[:, :0]), ["x_train", "(6, 0)"]),
        (make_split(x_train=X.astype(str)), ["x_train must be numbers"]),
        (make_split(x_train=X.astype(complex)), ["x_train must be numbers", "complex128"]),
        (make_split(x_train=X.astype(object)), ["could not be read", "allow_pickle"]),
    ],
)
def test_npz_that_cannot_be_used(tmp_path, keys, words):
    with pytest.raises(DataError) as error:
        load_data(write_npz(tmp_path / "a.npz", **keys))
    assert_says(error, "a", *words)


@pytest.mark.parametrize(
    ("y_train", "y_test", "missing"),
    [
        (Y + 1, Y + 1, "0"),
        ([0, 1, 3, 3, 0, 1], [0, 1, 3, 3, 0, 1], "2"),
        (Y, Y * 5, "2, 3, 4, 5"),
        (Y, Y * 13, "2, 3, 4, 5, 6, 7, 8, 9, 10, and 3 more"),
    ],
)
def test_labels_may_skip_classes(tmp_path, y_train, y_test, missing):
    """A network may have logits for classes without examples, so only the command can judge."""
    keys = make_split(y_train=np.array(y_train), y_test=np.array(y_test))
    data = load_data(write_npz(tmp_path / "a.npz", **keys))
    np.testing.assert_array_equal(data.y_train, y_train)
    np.testing.assert_array_equal(data.y_test, y_test)
    assert data.classes == len(data.class_names) == max(*y_train, *y_test) + 1
    assert data.name_missing(np.arange(data.classes)) == missing


def test_classes_without_examples_are_added_and_left_out(tmp_path):
    keys = make_split(y_train=np.array([1, 3, 3, 1, 1, 3]), y_test=np.array([3, 1, 7, 7, 7, 7]))
    data = load_data(write_npz(tmp_path / "a.npz", **keys))
    more = data.with_classes(10)
    assert (more.classes, more.class_names) == (10, tuple("0123456789"))
    few = more.renumber()
    assert (few.classes, few.class_names) == (3, ("1", "3", "7"))
    np.testing.assert_array_equal(few.y_train, [0, 1, 1, 0, 0, 1])
    np.testing.assert_array_equal(few.y_test, [1, 0, 2, 2, 2, 2])
    assert few.y_train.dtype == np.int64
    assert few.name_missing(np.unique(few.y_test)) == "2 (7)"
    assert data.shorten(2).classes == 8
    with pytest.raises(DataError, match="lack 1 of its 2 classes"):
        data.shorten(1)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e300])
def test_values_that_are_not_finite(tmp_path, value):
    x = X.copy()
    x[2, 1] = x[4, 0] = value
    for key, split in (("x_train", "train"), ("x_test", "test")):
        with pytest.raises(DataError) as error:
            load_data(write_npz(tmp_path / "a.npz", **make_split(**{key: x})))
        assert_says(error, f"a: {split} data must be finite", "2 NaN or infinite", "(2, 1)")


def test_files_that_are_no_archive(tmp_path):
    path = tmp_path / "a.npz"
    good = Path(write_npz(path, **make_split())).read_bytes()
    for content in (b"", b"junk", b"\x80\x04K\x01.", good[:-30], good[:200]):
        path.write_bytes(content)
        with pytest.raises(DataError) as error:
            load_data(str(path))
        assert_says(error, "a.npz could not be read as an .npz archive")
    with path.open("wb") as file:
        np.save(file, X)  # a single array instead of an archive
    with pytest.raises(DataError, match="could not be read"):
        load_data(str(path))


def test_pickles_are_never_run(tmp_path):
    class Trap:
        def __reduce__(self):
            return (pathlib.Path.touch, (tmp_path / "ran",))

    source = write_npz(
        tmp_path / "a.npz", **make_split(x_train=np.array([Trap()] * 6, dtype=object))
    )
    with pytest.raises(DataError, match="allow_pickle"):
        load_data(source)
    assert not (tmp_path / "ran").exists()
