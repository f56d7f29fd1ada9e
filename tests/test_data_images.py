"""Tests of loading folders of images with a sub-folder for each class."""

import warnings

import numpy as np
import pytest

from deepdefense.app.data import load_data
from deepdefense.evaluation.dataset import DataError
from files import Image, assert_says, draw_grey, encode_image, write_folder, write_parquet


def test_folder_without_a_split(tmp_path):
    pixels = draw_grey(20)
    # The datasets library would mistake these file names for names of splits.
    files = {f"{'ab'[i % 2]}/test_{i:02}.png": pixels[i] for i in range(20)}
    # The library would mistake the brackets of this path for a pattern.
    root = write_folder(tmp_path / "set[1]", files)
    (root / "a" / "notes.txt").write_text("not an image")
    write_folder(root, {"contact sheet.png": draw_grey(1)[0]})  # belongs to no class
    data = load_data(str(root), seed=5)
    assert data.name == "set[1]"
    assert (data.x_train.shape, data.x_test.shape) == ((16, 1, 4, 5), (4, 1, 4, 5))
    assert (data.classes, data.class_names, data.scale) == (2, ("a", "b"), 255.0)
    np.testing.assert_array_equal(np.bincount(data.y_test), [2, 2])
    assert data.preprocessing.endswith("seed 5")
    np.testing.assert_allclose(data.x_train.mean(0), 0, atol=1e-4)
    of_a = np.round(data.x_train + data.mean).astype(np.uint8)[data.y_train == 0, 0]
    assert {row.tobytes() for row in of_a} <= {row.tobytes() for row in pixels[::2]}


@pytest.mark.parametrize("test_folder", ["test", "val", "validation"])
def test_folder_with_a_split(tmp_path, test_folder):
    pixels = draw_grey(6)
    names = ["train/cat/1", "train/cat/2", "train/dog/1", "train/eel/1", f"{test_folder}/dog/1"]
    files = {f"{name}.png": image for name, image in zip(names, pixels, strict=False)}
    data = load_data(str(write_folder(tmp_path, files)))
    np.testing.assert_array_equal(data.y_train, [0, 0, 1, 2])
    np.testing.assert_array_equal(data.y_test, [1])
    assert data.class_names == ("cat", "dog", "eel")
    np.testing.assert_allclose(data.x_train[:, 0] + data.mean, pixels[:4], atol=1e-4)
    np.testing.assert_allclose(data.x_test[:, 0] + data.mean, pixels[4:5], atol=1e-4)
    np.testing.assert_allclose(data.mean[0], pixels[:4].mean(0), rtol=1e-6)  # of the training set
    assert data.preprocessing == "pixels 0..255 minus the training mean image"


def test_grey_and_colour_become_colour_in_either_order(tmp_path):
    colour = np.random.default_rng(1).integers(0, 256, (2, 4, 5, 3), dtype=np.uint8)
    g = draw_grey(2)
    files = {
        "train/a/1.png": g[0],
        "train/a/2.png": colour[0],
        "train/b/1.png": g[1],
        "test/b/1.png": colour[1],
    }
    data = load_data(str(write_folder(tmp_path, files)))
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
        data = load_data(str(folder))
    pixels = np.concatenate([data.x_train, data.x_test]) + data.mean
    assert pixels.shape == (4, 3, 4, 5)
    assert set(np.round(pixels).ravel()) == {7, 8, 9}


def test_photographs_are_turned_upright(tmp_path):
    pixels = np.zeros((4, 6), np.uint8)
    pixels[:, 3:] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # rotated by 90 degrees
    images = [encode_image(pixels, "JPEG", exif=exif)] * 2 + [encode_image(pixels, "JPEG")]
    with pytest.raises(DataError, match="one height and width"):
        load_data(str(write_parquet(tmp_path / "a.parquet", images, [0, 1, 1])))
    data = load_data(str(write_parquet(tmp_path / "a.parquet", images[:2] * 2, [0, 1, 0, 1])))
    assert data.x_train.shape[1:] == (1, 6, 4)


@pytest.mark.parametrize(
    "files", [[], ["1.png", "2.png"], ["a/1.png", "a/2.png"], ["a/1.png", "b/c/1.png"], ["a/1.txt"]]
)
def test_folders_without_classes(tmp_path, files):
    images = {name: draw_grey(1)[0] for name in files if name.endswith("png")}
    write_folder(tmp_path, images)
    if not images and files:
        (tmp_path / "a").mkdir()
        (tmp_path / "a" / "1.txt").write_text("nothing")
    with pytest.raises(DataError) as error:
        load_data(str(tmp_path))
    assert_says(error, str(tmp_path), "a sub-folder of images for each class")


def test_folders_whose_sets_differ(tmp_path):
    image = draw_grey(1)[0]
    files = ["train/a/1.png", "train/b/1.png", "test/c/1.png"]
    data = load_data(str(write_folder(tmp_path / "1", dict.fromkeys(files, image))))
    assert data.name_missing(np.unique(data.y_test)) == "2 (c)"
    (tmp_path / "2" / "test" / "a").mkdir(parents=True)
    with pytest.raises(DataError) as error:
        load_data(str(write_folder(tmp_path / "2", dict.fromkeys(files[:2], image))))
    assert_says(error, "2: expected examples", "got 2 and 0")
    (tmp_path / "2" / "test" / "a" / "1.txt").write_text("no image")
    with pytest.raises(DataError, match="got 2 and 0"):
        load_data(str(tmp_path / "2"))


def test_first_image_of_another_size_is_named(tmp_path):
    files = {f"{c}/{i}.png": draw_grey(1)[0] for c in "ab" for i in range(3)}
    files["a/2.png"] = files["b/0.png"] = draw_grey(1, (4, 6))[0]
    with pytest.raises(DataError) as error:
        load_data(str(write_folder(tmp_path, files)))
    assert_says(error, "0.png is (4, 5)", f"{tmp_path / 'a' / '2.png'} is (4, 6)")
    assert str(tmp_path / "b") not in str(error.value)


@pytest.mark.parametrize(("size", "shape"), [("6", (6, 6)), ("3x8", (3, 8)), ("4X5", (4, 5))])
def test_images_are_resized(tmp_path, size, shape):
    files = {f"{c}/{i}.png": draw_grey(1, (4 + i, 5 + i))[0] for c in "ab" for i in range(3)}
    files["a/9.png"] = np.full((9, 2), 70, np.uint8)
    folder = str(write_folder(tmp_path, files))
    with pytest.raises(DataError, match="give --resize N or HEIGHTxWIDTH"):
        load_data(folder)
    data = load_data(folder, resize=size)
    assert data.x_train.shape[1:] == (1, *shape)
    assert f"images resized to {shape[0]} x {shape[1]} pixels; no published" in data.preprocessing
    pixels = np.concatenate([data.x_train, data.x_test]) + data.mean
    assert any(np.allclose(image, 70, atol=1e-3) for image in pixels)
    if shape == (4, 5):  # images that have the size already keep their pixels
        assert any(np.allclose(image[0], files["a/0.png"], atol=1e-3) for image in pixels)


def test_colour_and_palette_are_resized(tmp_path):
    colour = np.random.default_rng(1).integers(0, 256, (9, 5, 3), dtype=np.uint8)
    folder = write_folder(tmp_path, {"a/1.png": colour, "a/2.png": colour, "b/1.png": colour})
    palette = Image.fromarray(np.zeros((4, 4), np.uint8), "P")
    palette.putpalette([250, 8, 8])
    palette.save(tmp_path / "b" / "2.png")
    data = load_data(str(folder), resize="3")
    pixels = np.concatenate([data.x_train, data.x_test]) + data.mean
    assert pixels.shape == (4, 3, 3, 3)
    assert any(np.allclose(image.mean((1, 2)), [250, 8, 8], atol=1e-3) for image in pixels)


@pytest.mark.parametrize("size", ["0", "-3", "4x", "4x5x6", "large", "4.5", ""])
def test_sizes_that_are_none(tmp_path, size):
    with pytest.raises(DataError) as error:
        load_data(str(tmp_path), resize=size)
    assert_says(error, "resize must be a size in pixels, such as 64", f"got {size!r}")


@pytest.mark.parametrize("content", [b"", b"junk", "cut"])
def test_broken_image_is_named(tmp_path, content):
    write_folder(
        tmp_path, {f"{c}/{i}.png": draw_grey(1, (40, 40))[0] for c in "ab" for i in range(3)}
    )
    broken = tmp_path / "b" / "1.png"
    broken.write_bytes(broken.read_bytes()[:700] if content == "cut" else content)
    with pytest.raises(DataError) as error:
        load_data(str(tmp_path))
    assert_says(error, f"image {broken} could not be read")


def test_images_of_16_bits_are_not_clipped(tmp_path):
    image = np.full((4, 5), 40000, np.uint16)
    with pytest.raises(DataError) as error:
        load_data(str(write_folder(tmp_path, {"a/1.png": image, "b/1.png": image})))
    assert_says(error, "1.png has more (mode I;16)")
    assert str(error.value).startswith("images must have 8 bits a pixel")
