import hashlib
import io
import logging
import os
import pathlib
import socket
import struct
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest

from deepdefense.data import DataError, Dataset, load

datasets = pytest.importorskip("datasets", reason="needs deepdefense[cli]")
pytest.importorskip("sklearn", reason="needs deepdefense[cli]")
pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")
Image = pytest.importorskip("PIL.Image", reason="needs deepdefense[cli]")

REPOSITORY = Path(__file__).resolve().parents[1]
SHARED = REPOSITORY.parent / "shared" / "data"


def encoded(pixels: np.ndarray, kind: str = "PNG", **options) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, kind, **options)
    return stream.getvalue()


def grey(n: int, size: tuple[int, int] = (4, 5), seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (n, *size), dtype=np.uint8)


def write_parquet(path: Path, images, labels, image="image", label="label") -> Path:
    cells = [{"bytes": cell, "path": f"{i}.png"} for i, cell in enumerate(images)]
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({image: cells, label: labels}), path)
    return path


def write_folder(root: Path, pixels: dict[str, np.ndarray]) -> Path:
    for where, image in pixels.items():
        (root / where).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(root / where)
    return root


def write_npz(path: Path, **arrays) -> str:
    np.savez(path, **arrays)
    return str(path)


def says(error: pytest.ExceptionInfo, *words: str) -> None:
    message = str(error.value)
    assert "\n" not in message
    for word in words:
        assert word in message, message


def four(n: int = 6, **changes):
    """Keys of a good split file, some of them changed."""
    x, y = np.random.default_rng(0).normal(size=(n, 3)), np.arange(n) % 2
    return {"x_train": x, "y_train": y, "x_test": x + 1, "y_test": y} | changes


# -- digits and the split -------------------------------------------------------------------------


def test_digits():
    data = load("digits")
    assert data.name == "digits"
    assert data.x_train.shape[1:] == data.x_test.shape[1:] == data.mean.shape == (1, 8, 8)
    assert len(data.x_train) + len(data.x_test) == 1797
    assert data.x_train.dtype == data.x_test.dtype == data.mean.dtype == np.float32
    assert data.y_train.dtype == data.y_test.dtype == np.int64
    assert data.classes == 10
    assert data.class_names == tuple("0123456789")
    assert data.scale == 255.0
    assert "0..16 brought to 0..255, minus the training mean image" in data.preprocessing
    assert "20 %" in data.preprocessing
    assert "seed 0" in data.preprocessing
    np.testing.assert_allclose(data.x_train.mean(0, dtype=float), 0, atol=1e-4)
    pixels = (data.x_test + data.mean) * 16 / 255
    np.testing.assert_allclose(pixels, np.round(pixels), atol=1e-5)
    assert (np.round(pixels).min(), np.round(pixels).max()) == (0, 16)


def test_digits_split_is_stratified_seeded_and_keeps_the_order():
    data = load("digits", seed=3)
    counts = np.bincount(np.concatenate([data.y_train, data.y_test]))
    np.testing.assert_array_equal(np.bincount(data.y_test), np.round(0.2 * counts))
    assert load("digits", seed=3).fingerprint() == data.fingerprint()
    assert load("digits", seed=4).fingerprint() != data.fingerprint()
    # The order of the file is kept, and no row is lost or in both sets.
    from sklearn.datasets import load_digits

    whole = [image.tobytes() for image in load_digits().images.astype(np.uint8)]
    for x in (data.x_train, data.x_test):
        rows = [
            image.tobytes() for image in np.round((x + data.mean) * 16 / 255).astype(np.uint8)[:, 0]
        ]
        places = [whole.index(row) for row in rows]
        assert places == sorted(places)


def test_small_classes_are_held_out_once(tmp_path):
    y = np.array([0, 0, 0, 0, 0, 0, 0, 1, 1, 2])
    data = load(write_npz(tmp_path / "a.npz", x=np.arange(20.0).reshape(10, 2), y=y))
    np.testing.assert_array_equal(np.bincount(data.y_test), [1, 1])
    np.testing.assert_array_equal(np.bincount(data.y_train), [6, 1, 1])
    assert len({*data.x_train[:, 0], *data.x_test[:, 0]}) == 10


# -- npz ------------------------------------------------------------------------------------------


def test_npz_floats_are_taken_as_they_are(tmp_path):
    keys = four()
    data = load(write_npz(tmp_path / "mine.npz", **keys))
    assert data.name == "mine"
    np.testing.assert_array_equal(data.x_train, keys["x_train"].astype(np.float32))
    np.testing.assert_array_equal(data.x_test, keys["x_test"].astype(np.float32))
    np.testing.assert_array_equal(data.y_test, keys["y_test"])
    assert (data.scale, data.classes, data.class_names) == (0.0, 2, ("0", "1"))
    assert data.display(data.x_test) is None
    assert data.preprocessing == "taken as they are, nothing subtracted"


@pytest.mark.parametrize(
    ("shape", "expected", "scale"),
    [
        ((6, 4, 5), (1, 4, 5), 255),
        ((6, 4, 5, 1), (1, 4, 5), 255),
        ((6, 4, 5, 3), (3, 4, 5), 255),
        ((6, 3, 4, 5), (3, 4, 5), 255),
        ((6, 20), (20,), 0),  # pixels, but not as a picture to draw
        ((6, 4, 5, 7), (4, 5, 7), 0),
    ],
)
def test_npz_uint8_are_pixels(tmp_path, shape, expected, scale):
    x = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    keys = four(x_train=x, x_test=x[:2], y_test=np.array([0, 1]))
    data = load(write_npz(tmp_path / "a.npz", **keys))
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
    keys = four(x=np.zeros((3, 1)), y=np.zeros(3, int))
    assert load(write_npz(tmp_path / "a.npz", **keys)).x_train.shape == (6, 3)


X, Y = four()["x_train"], four()["y_train"]


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"x": X, "z": Y}, ["x_train, y_train, x_test, y_test, or x, y", "has x, z"]),
        ({}, ["has none"]),
        (four(y_train=Y[:-1]), ["y_train", "6 integers", "(5,)"]),
        (four(y_test=Y[:, None]), ["y_test", "(6, 1)"]),
        (four(y_train=Y.astype(float)), ["y_train", "integers", "float64"]),
        (four(y_train=Y - 1), ["y_train", "negative", "-1 at index 0"]),
        (four(y_train=Y + 1), ["all labels", "0 does not"]),
        (four(y_train=np.array([0, 1, 3, 3, 0, 1])), ["3 labels of 0..3", "2 does not"]),
        (four(y_test=Y * 5), ["2 labels of 0..1", "5 does not"]),
        (four(y_train=Y * 0, y_test=Y * 0), ["two classes or more"]),
        (four(x_test=X[:0], y_test=Y[:0]), ["expected examples", "6 and 0"]),
        (four(x_train=X[:0], y_train=Y[:0]), ["expected examples", "0 and 6"]),
        ({"x": X[:0], "y": Y[:0]}, ["expected examples"]),
        ({"x": X[:2], "y": Y[:2]}, ["expected examples", "2 and 0"]),  # singletons: none held out
        (four(x_test=X[:, :2]), ["shapes must agree", "(3,), (2,)"]),
        (four(x_test=np.zeros((6, 3), np.uint8)), ["uint8 or neither", "float64 and uint8"]),
        (four(x_train=np.arange(6.0)), ["x_train", "[n ...]", "(6,)"]),
        (four(x_train=X[:, :0]), ["x_train", "(6, 0)"]),
        (four(x_train=X.astype(str)), ["x_train must be numbers"]),
        (four(x_train=X.astype(complex)), ["x_train must be numbers", "complex128"]),
        (four(x_train=X.astype(object)), ["could not be read", "allow_pickle"]),
    ],
)
def test_npz_that_cannot_be_used(tmp_path, keys, words):
    with pytest.raises(DataError) as error:
        load(write_npz(tmp_path / "a.npz", **keys))
    says(error, "a", *words)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e300])
def test_values_that_are_not_finite(tmp_path, value):
    x = X.copy()
    x[2, 1] = x[4, 0] = value
    for key, split in (("x_train", "train"), ("x_test", "test")):
        with pytest.raises(DataError) as error:
            load(write_npz(tmp_path / "a.npz", **four(**{key: x})))
        says(error, f"a: {split} data must be finite", "2 NaN or infinite", "(2, 1)")


def test_files_that_are_no_archive(tmp_path):
    path = tmp_path / "a.npz"
    good = Path(write_npz(path, **four())).read_bytes()
    for content in (b"", b"junk", b"\x80\x04K\x01.", good[:-30], good[:200]):
        path.write_bytes(content)
        with pytest.raises(DataError) as error:
            load(str(path))
        says(error, "a.npz could not be read as an .npz archive")
    with path.open("wb") as file:
        np.save(file, X)  # an array where an archive is expected
    with pytest.raises(DataError, match="could not be read"):
        load(str(path))


def test_pickles_are_never_run(tmp_path):
    class Trap:
        def __reduce__(self):
            return (pathlib.Path.touch, (tmp_path / "ran",))

    source = write_npz(tmp_path / "a.npz", **four(x_train=np.array([Trap()] * 6, dtype=object)))
    with pytest.raises(DataError, match="allow_pickle"):
        load(source)
    assert not (tmp_path / "ran").exists()


# -- folders of images ----------------------------------------------------------------------------


def test_folder_without_a_split(tmp_path):
    pixels = grey(20)
    # Names that the datasets library would take for those of splits.
    files = {f"{'ab'[i % 2]}/test_{i:02}.png": pixels[i] for i in range(20)}
    root = write_folder(tmp_path / "set[1]", files)  # and a path that it would take for a pattern
    (root / "a" / "notes.txt").write_text("not an image")
    write_folder(root, {"contact sheet.png": grey(1)[0]})  # of no class
    data = load(str(root), seed=5)
    assert data.name == "set[1]"
    assert (data.x_train.shape, data.x_test.shape) == ((16, 1, 4, 5), (4, 1, 4, 5))
    assert (data.classes, data.class_names, data.scale) == (2, ("a", "b"), 255.0)
    np.testing.assert_array_equal(np.bincount(data.y_test), [2, 2])
    assert data.preprocessing.endswith("seed 5")
    np.testing.assert_allclose(data.x_train.mean(0), 0, atol=1e-4)
    of_a = np.round(data.x_train + data.mean).astype(np.uint8)[data.y_train == 0, 0]
    assert {row.tobytes() for row in of_a} <= {row.tobytes() for row in pixels[::2]}


@pytest.mark.parametrize("held", ["test", "val", "validation"])
def test_folder_with_a_split(tmp_path, held):
    pixels = grey(6)
    names = ["train/cat/1", "train/cat/2", "train/dog/1", "train/eel/1", f"{held}/dog/1"]
    files = {f"{name}.png": image for name, image in zip(names, pixels, strict=False)}
    data = load(str(write_folder(tmp_path, files)))
    np.testing.assert_array_equal(data.y_train, [0, 0, 1, 2])
    np.testing.assert_array_equal(data.y_test, [1])
    assert data.class_names == ("cat", "dog", "eel")
    np.testing.assert_allclose(data.x_train[:, 0] + data.mean, pixels[:4], atol=1e-4)
    np.testing.assert_allclose(data.x_test[:, 0] + data.mean, pixels[4:5], atol=1e-4)
    np.testing.assert_allclose(data.mean[0], pixels[:4].mean(0), rtol=1e-6)  # training set alone
    assert data.preprocessing == "pixels 0..255 minus the training mean image"


def test_grey_and_colour_become_colour_in_either_order(tmp_path):
    colour = np.random.default_rng(1).integers(0, 256, (2, 4, 5, 3), dtype=np.uint8)
    g = grey(2)
    files = {
        "train/a/1.png": g[0],
        "train/a/2.png": colour[0],
        "train/b/1.png": g[1],
        "test/b/1.png": colour[1],
    }
    data = load(str(write_folder(tmp_path, files)))
    assert data.x_train.shape == (3, 3, 4, 5)
    pixels = np.round(data.x_train + data.mean).astype(np.uint8)
    np.testing.assert_array_equal(pixels[0], np.stack([g[0]] * 3))
    np.testing.assert_array_equal(pixels[1], np.moveaxis(colour[0], 2, 0))
    np.testing.assert_array_equal(pixels[2], np.stack([g[1]] * 3))
    np.testing.assert_array_equal(
        np.round(data.x_test + data.mean)[0], np.moveaxis(colour[1], 2, 0)
    )


def test_other_modes_become_colour_without_warnings(tmp_path):
    rgba = np.full((4, 5, 4), 9, np.uint8)
    palette = Image.fromarray(np.arange(20, dtype=np.uint8).reshape(4, 5) % 2, "P")
    palette.putpalette([7, 7, 7, 8, 8, 8])
    folder = write_folder(tmp_path, {"a/1.png": rgba, "a/2.png": rgba, "b/1.png": rgba})
    palette.save(tmp_path / "b" / "2.png", transparency=bytes([100, 50]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        data = load(str(folder))
    pixels = np.concatenate([data.x_train, data.x_test]) + data.mean
    assert pixels.shape == (4, 3, 4, 5)
    assert set(np.round(pixels).ravel()) == {7, 8, 9}


def test_photographs_are_turned_upright(tmp_path):
    pixels = np.zeros((4, 6), np.uint8)
    pixels[:, 3:] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees
    images = [encoded(pixels, "JPEG", exif=exif)] * 2 + [encoded(pixels, "JPEG")]
    with pytest.raises(DataError, match="one height and width"):
        load(str(write_parquet(tmp_path / "a.parquet", images, [0, 1, 1])))
    data = load(str(write_parquet(tmp_path / "a.parquet", images[:2] * 2, [0, 1, 0, 1])))
    assert data.x_train.shape[1:] == (1, 6, 4)


@pytest.mark.parametrize(
    "files", [[], ["1.png", "2.png"], ["a/1.png", "a/2.png"], ["a/1.png", "b/c/1.png"], ["a/1.txt"]]
)
def test_folders_without_classes(tmp_path, files):
    images = {name: grey(1)[0] for name in files if name.endswith("png")}
    write_folder(tmp_path, images)
    if not images and files:
        (tmp_path / "a").mkdir()
        (tmp_path / "a" / "1.txt").write_text("nothing")
    with pytest.raises(DataError) as error:
        load(str(tmp_path))
    says(error, str(tmp_path), "a sub-folder of images for each class")


def test_folders_whose_sets_differ(tmp_path):
    image = grey(1)[0]
    files = ["train/a/1.png", "train/b/1.png", "test/c/1.png"]
    with pytest.raises(DataError) as error:
        load(str(write_folder(tmp_path / "1", dict.fromkeys(files, image))))
    says(error, "0..1 occur there, 2 (c) does not")
    (tmp_path / "2" / "test" / "a").mkdir(parents=True)
    with pytest.raises(DataError) as error:
        load(str(write_folder(tmp_path / "2", dict.fromkeys(files[:2], image))))
    says(error, "2: expected examples", "got 2 and 0")
    (tmp_path / "2" / "test" / "a" / "1.txt").write_text("no image")
    with pytest.raises(DataError, match="got 2 and 0"):
        load(str(tmp_path / "2"))


def test_first_image_of_another_size_is_named(tmp_path):
    files = {f"{c}/{i}.png": grey(1)[0] for c in "ab" for i in range(3)}
    files["a/2.png"] = files["b/0.png"] = grey(1, (4, 6))[0]
    with pytest.raises(DataError) as error:
        load(str(write_folder(tmp_path, files)))
    says(error, "0.png is (4, 5)", f"{tmp_path / 'a' / '2.png'} is (4, 6)")
    assert str(tmp_path / "b") not in str(error.value)


@pytest.mark.parametrize("content", [b"", b"junk", "cut"])
def test_broken_image_is_named(tmp_path, content):
    write_folder(tmp_path, {f"{c}/{i}.png": grey(1, (40, 40))[0] for c in "ab" for i in range(3)})
    broken = tmp_path / "b" / "1.png"
    broken.write_bytes(broken.read_bytes()[:700] if content == "cut" else content)
    with pytest.raises(DataError) as error:
        load(str(tmp_path))
    says(error, f"image {broken} could not be read")


def test_images_of_16_bits_are_not_clipped(tmp_path):
    image = np.full((4, 5), 40000, np.uint16)
    with pytest.raises(DataError) as error:
        load(str(write_folder(tmp_path, {"a/1.png": image, "b/1.png": image})))
    says(error, "1.png has more (mode I;16)")
    assert str(error.value).startswith("images must have 8 bits a pixel")


# -- parquet --------------------------------------------------------------------------------------


def test_parquet_file_is_split(tmp_path):
    pixels = grey(10)
    path = write_parquet(tmp_path / "a[1].parquet", map(encoded, pixels), [0, 1] * 5)
    data = load(str(path))
    assert (data.name, data.classes, data.class_names) == ("a[1]", 2, ("0", "1"))
    assert (len(data.x_train), len(data.x_test)) == (8, 2)


def test_parquet_folder_of_shards(tmp_path):
    pixels = grey(9)
    images = [encoded(image) for image in pixels]
    for i in range(3):
        rows, labels = images[2 * i : 2 * i + 2], [i, 2 - i]
        write_parquet(tmp_path / f"train-{i}.parquet", rows, labels, "img", "fine_label")
    write_parquet(tmp_path / "test-0.parquet", images[6:], [2, 0, 1], "img", "fine_label")
    data = load(str(tmp_path))
    np.testing.assert_array_equal(data.y_train, [0, 2, 1, 1, 2, 0])
    np.testing.assert_array_equal(data.y_test, [2, 0, 1])
    np.testing.assert_allclose(data.x_train[:, 0] + data.mean, pixels[:6], atol=1e-4)
    np.testing.assert_allclose(data.x_test[:, 0] + data.mean, pixels[6:], atol=1e-4)


def hub_schema(n: int, size: tuple[int, ...], classes: int):
    """A split as the hub has it, with the features Image and ClassLabel."""
    names = [f"class {i}" for i in range(classes)]
    columns = {"image": datasets.Image(), "label": datasets.ClassLabel(names=names)}
    pixels = np.random.default_rng(0).integers(0, 256, (n, *size), dtype=np.uint8)
    rows = {
        "image": [{"bytes": encoded(image), "path": None} for image in pixels],
        "label": [i % classes for i in range(n)],
    }
    return datasets.Dataset.from_dict(rows, features=datasets.Features(columns)), pixels


def test_parquet_with_features_of_the_hub(tmp_path):
    split, pixels = hub_schema(6, (4, 5, 3), 3)
    table = split.with_format("arrow")[:]
    for name in ("train", "test"):
        pq.write_table(table, tmp_path / f"{name}.parquet")
    assert b"ClassLabel" in pq.read_schema(tmp_path / "test.parquet").metadata[b"huggingface"]
    data = load(str(tmp_path))
    assert data.class_names == ("class 0", "class 1", "class 2")
    expected = np.moveaxis(pixels, 3, 1)
    np.testing.assert_allclose(data.x_train + data.mean, expected, atol=1e-4)
    pq.write_table(table.slice(0, 2), tmp_path / "train.parquet")  # one class fewer than names
    pq.write_table(table.slice(0, 2), tmp_path / "test.parquet")
    assert load(str(tmp_path)).class_names == ("class 0", "class 1")


def test_parquet_that_cannot_be_used(tmp_path):
    good = [encoded(image) for image in grey(4)]
    path = tmp_path / "a.parquet"

    def fails(*words: str) -> None:
        with pytest.raises(DataError) as error:
            load(str(path))
        says(error, *words)

    write_parquet(path, good, [0, 1, 0, 1], image="photo")
    fails("a.parquet must have a column image or img", "there are: photo, label")
    write_parquet(path, good, [0, 1, 0, 1], label="kind")
    fails("a column label or fine_label", "there are: image, kind")
    write_parquet(path, good, ["a", "b", "a", "b"])
    fails("a: labels must be 4 integers", "object")
    write_parquet(path, good, [0, 1, None, 1])
    fails("a: labels must be 4 integers")
    write_parquet(path, good, [0, 1, -1, -1])
    fails("must not be negative", "-1 at index 2")
    write_parquet(path, [*good[:2], b"junk", good[3]], [0, 1, 0, 1])
    fails("image row 2 of", "a.parquet could not be read")
    write_parquet(path, [good[0], None, *good[2:]], [0, 1, 0, 1])
    fails("image 1.png could not be read", "No such file")
    pq.write_table(pa.table({"image": [1, 2], "label": [0, 1]}), path)
    fails("row 0 of", "the column image must hold {bytes, path}")
    pq.write_table(pa.table({"image": good[:2], "label": [0, 1]}).slice(0, 0), path)
    fails("expected examples")
    for junk in (b"", b"PAR1 but not really", write_parquet(path, good, [0] * 4).read_bytes()[:-9]):
        path.write_bytes(junk)
        fails("a.parquet could not be read")


def test_parquet_folder_must_have_both(tmp_path):
    write_parquet(tmp_path / "train.parquet", [], [])
    with pytest.raises(DataError) as error:
        load(str(tmp_path))
    says(error, "train*.parquet and test*.parquet", "it has train.parquet")


# -- named sets -----------------------------------------------------------------------------------


def write_mnist(folder: Path, size=(28, 28)) -> Path:
    images = [encoded(image) for image in grey(20, size)]
    write_parquet(folder / "train-00000-of-00001.parquet", images, [*range(10)] * 2)
    write_parquet(folder / "test-00000-of-00001.parquet", images[:3], [7, 2, 1])
    return folder


def test_named_set_from_a_local_copy(tmp_path):
    inside = load("mnist", data_dir=write_mnist(tmp_path / "data" / "mnist"))
    assert inside.name == "mnist"
    assert (inside.x_train.shape, inside.classes) == ((20, 1, 28, 28), 10)
    np.testing.assert_array_equal(inside.y_test, [7, 2, 1])
    above = load("mnist", data_dir=str(tmp_path / "data"))
    assert above.fingerprint() == inside.fingerprint()


def test_wrong_local_copies(tmp_path):
    with pytest.raises(DataError) as error:
        load("mnist", data_dir=tmp_path / "nowhere")
    says(error, "nowhere must be a folder of train*.parquet", "does not exist")
    with pytest.raises(DataError) as error:
        load("cifar10", data_dir=write_mnist(tmp_path))
    says(error, "cifar10: expected images (3, 32, 32), the copy given has (1, 28, 28)")


def test_hub(monkeypatch):
    train, pixels = hub_schema(20, (28, 28), 10)
    asked = []

    def load_dataset(name):
        asked.append(name)
        assert datasets.are_progress_bars_disabled()
        assert not logging.getLogger("datasets").isEnabledFor(logging.ERROR)
        assert not logging.getLogger("huggingface_hub").isEnabledFor(logging.ERROR)
        return datasets.DatasetDict({"train": train, "test": train.select(range(4))})

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    data = load("mnist")
    assert asked == ["ylecun/mnist"]
    np.testing.assert_allclose(data.x_train[:, 0] + data.mean, pixels, atol=1e-4)
    np.testing.assert_array_equal(data.y_test, [0, 1, 2, 3])
    assert data.class_names[3] == "class 3"


def test_hub_that_cannot_be_reached(monkeypatch):
    def load_dataset(name):
        raise ConnectionError(f"Couldn't reach {name!r} on the Hub\nand much more")

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    with pytest.raises(DataError) as error:
        load("cifar10")
    says(
        error, "cifar10: the Hugging Face hub could not be reached", "uoft-cs/cifar10", "--data-dir"
    )


# -- the rest -------------------------------------------------------------------------------------


def test_unknown_sources(tmp_path):
    with pytest.raises(DataError) as error:
        load("minst")
    says(error, "digits, mnist, cifar10, an .npz", "got 'minst', which does not exist")
    (tmp_path / "a.csv").write_text("1,2")
    with pytest.raises(DataError, match="a file of another kind"):
        load(str(tmp_path / "a.csv"))
    assert issubclass(DataError, ValueError)


@pytest.mark.parametrize(
    ("source", "module"),
    [("digits", "sklearn.datasets"), ("mnist", "datasets"), ("f", "PIL.Image")],
)
def test_missing_packages(tmp_path, monkeypatch, source, module):
    if source == "f":
        source = str(write_folder(tmp_path, {"a/1.png": grey(1)[0], "b/1.png": grey(1)[0]}))
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(DataError) as error:
        load(source)
    says(error, 'pip install "deepdefense[cli]"', module)


def test_fingerprint_covers_all_arrays():
    def data(**changes) -> Dataset:
        arrays = {
            "x_train": np.arange(6, dtype=np.float32).reshape(2, 3),
            "y_train": np.array([0, 1]),
            "x_test": np.ones((2, 3), np.float32),
            "y_test": np.array([1, 0]),
        } | changes
        rest = {"classes": 2, "mean": np.zeros(3), "scale": 0.0, "preprocessing": ""}
        return Dataset(name="a", class_names=("0", "1"), **arrays, **rest)

    first = data()
    # Written out byte by byte, as it must stay the same on every run and machine.
    parts = [
        b"<f4(2, 3)" + struct.pack("<6f", *range(6)),
        b"<i8(2,)" + struct.pack("<2q", 0, 1),
        b"<f4(2, 3)" + struct.pack("<6f", *[1] * 6),
        b"<i8(2,)" + struct.pack("<2q", 1, 0),
    ]
    assert first.fingerprint() == hashlib.sha256(b"".join(parts)).hexdigest()[:16]
    x, y = first.x_train, first.y_train
    changes = [
        {"x_train": x + 1},
        {"x_test": x},
        {"y_train": y[::-1]},
        {"y_test": y},
        {"x_train": x.reshape(3, 2)},
        {"x_train": x.astype(np.float64)},
    ]
    prints = [data(**change).fingerprint() for change in changes]
    assert len({first.fingerprint(), *prints}) == 7
    assert data(x_train=np.asfortranarray(x)).fingerprint() == first.fingerprint()


def test_libraries_are_left_as_they_were(tmp_path, monkeypatch):
    def state():
        counts = datasets.config.HF_UPDATE_DOWNLOAD_COUNTS
        bars = datasets.are_progress_bars_disabled()
        return logging.getLogger("datasets").level, bars, counts, list(warnings.filters)

    path = write_parquet(tmp_path / "a.parquet", map(encoded, grey(4)), [0, 1, 0, 1])
    monkeypatch.setattr(datasets.config, "HF_UPDATE_DOWNLOAD_COUNTS", True)
    before = state()
    load(str(path))
    path.write_bytes(b"junk")
    with pytest.raises(DataError):
        load(str(path))
    assert state() == before


def test_local_files_need_no_network(tmp_path, monkeypatch):
    asked = []

    def getaddrinfo(host, *others, **options):
        asked.append(host)
        raise OSError("no network")

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(datasets.config, "HF_UPDATE_DOWNLOAD_COUNTS", True)
    load("mnist", data_dir=write_mnist(tmp_path / "mnist"))
    folder = write_folder(tmp_path / "f", {"a/1.png": grey(1)[0], "b/1.png": grey(1)[0]})
    with pytest.raises(DataError, match="got 2 and 0"):
        load(str(folder))
    assert asked == []


def test_nothing_is_printed_or_left_on_the_disk(tmp_path):
    home, data = tmp_path / "home", tmp_path / "data"
    home.mkdir()
    names = ["train/a/1.png", "train/b/1.png", "test/a/1.png"]
    write_folder(data / "folder", dict.fromkeys(names, grey(1)[0]))
    write_parquet(data / "a.parquet", map(encoded, grey(4)), [0, 1, 0, 1])
    listing = sorted(data.rglob("*"))
    program = (
        "import sys; from deepdefense.data import load; "
        "assert not {'datasets', 'PIL', 'sklearn'} & set(sys.modules); "
        f"load({str(data / 'a.parquet')!r}); load({str(data / 'folder')!r})"
    )
    keep = {key: os.environ[key] for key in ("PATH", "PYTHONPATH") if key in os.environ}
    kept = keep | {"HOME": str(home), "HF_HOME": str(home / "hf"), "TMPDIR": str(home)}
    command = [sys.executable, "-c", program]
    run = subprocess.run(command, env=kept, capture_output=True, text=True, cwd=REPOSITORY)
    assert (run.returncode, run.stdout, run.stderr) == (0, "", "")
    assert list(home.rglob("*")) == []
    assert sorted(data.rglob("*")) == listing


# -- real data ------------------------------------------------------------------------------------

real_data = pytest.mark.skipif(
    not SHARED.is_dir(), reason=f"needs MNIST and CIFAR-10 as parquet files in {SHARED}"
)


@real_data
def test_real_mnist():
    data = load("mnist", data_dir=SHARED)
    assert (data.x_train.shape, data.x_test.shape) == ((60000, 1, 28, 28), (10000, 1, 28, 28))
    np.testing.assert_array_equal(data.y_train[:8], [5, 0, 4, 1, 9, 2, 1, 3])
    np.testing.assert_array_equal(data.y_test[:8], [7, 2, 1, 0, 4, 1, 4, 9])
    assert (data.classes, data.scale) == (10, 255.0)
    assert data.preprocessing == "pixels 0..255 minus the training mean image"
    assert np.abs(data.x_train.mean(0, dtype=float)).max() < 1e-4
    assert abs(data.mean.mean() - 33.318) < 1e-3  # the known mean pixel, 0.1307 of 255
    pixels = data.x_test[:100] + data.mean
    np.testing.assert_allclose(pixels, np.round(pixels), atol=1e-4)


@real_data
def test_real_cifar10():
    data = load("cifar10", data_dir=SHARED)
    assert (data.x_train.shape, data.x_test.shape) == ((50000, 3, 32, 32), (10000, 3, 32, 32))
    assert np.bincount(data.y_train).tolist() == [5000] * 10
    assert np.bincount(data.y_test).tolist() == [1000] * 10
    np.testing.assert_array_equal(data.y_train[:8], [2, 3, 9, 5, 8, 6, 6, 2])
    np.testing.assert_array_equal(data.y_test[:8], [9, 0, 2, 5, 2, 8, 5, 6])
    assert (data.classes, data.scale) == (10, 255.0)
    assert np.abs(data.x_train.mean(0, dtype=float)).max() < 1e-4
    # The known mean of the channels; the copy is of JPEG, so it may differ a little.
    np.testing.assert_allclose(data.mean.mean((1, 2)), [125.3, 123.0, 113.9], atol=0.5)
