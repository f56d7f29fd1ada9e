"""Tests of loading images from parquet files, and published data sets, which are such files."""

import logging

import numpy as np
import pytest

from deepdefense.app.data import load_data
from deepdefense.evaluation.dataset import DataError
from files import (
    assert_says,
    datasets,
    draw_grey,
    encode_image,
    make_hub_split,
    pa,
    pq,
    write_mnist,
    write_parquet,
)


def test_parquet_file_is_split(tmp_path):
    pixels = draw_grey(10)
    path = write_parquet(tmp_path / "a[1].parquet", map(encode_image, pixels), [0, 1] * 5)
    data = load_data(str(path))
    assert (data.name, data.classes, data.class_names) == ("a[1]", 2, ("0", "1"))
    assert (len(data.x_train), len(data.x_test)) == (8, 2)


def test_parquet_folder_of_shards(tmp_path):
    pixels = draw_grey(9)
    images = [encode_image(image) for image in pixels]
    for i in range(3):
        rows, labels = images[2 * i : 2 * i + 2], [i, 2 - i]
        write_parquet(tmp_path / f"train-{i}.parquet", rows, labels, "img", "fine_label")
    write_parquet(tmp_path / "test-0.parquet", images[6:], [2, 0, 1], "img", "fine_label")
    data = load_data(str(tmp_path))
    np.testing.assert_array_equal(data.y_train, [0, 2, 1, 1, 2, 0])
    np.testing.assert_array_equal(data.y_test, [2, 0, 1])
    np.testing.assert_allclose(data.x_train[:, 0] + data.mean, pixels[:6], atol=1e-4)
    np.testing.assert_allclose(data.x_test[:, 0] + data.mean, pixels[6:], atol=1e-4)


def test_parquet_with_features_of_the_hub(tmp_path):
    split, pixels = make_hub_split(6, (4, 5, 3), 3)
    table = split.with_format("arrow")[:]
    for name in ("train", "test"):
        pq.write_table(table, tmp_path / f"{name}.parquet")
    assert b"ClassLabel" in pq.read_schema(tmp_path / "test.parquet").metadata[b"huggingface"]
    data = load_data(str(tmp_path))
    assert data.class_names == ("class 0", "class 1", "class 2")
    expected = np.moveaxis(pixels, 3, 1)
    np.testing.assert_allclose(data.x_train + data.mean, expected, atol=1e-4)
    pq.write_table(table.slice(0, 2), tmp_path / "train.parquet")  # has fewer classes than names
    pq.write_table(table.slice(0, 2), tmp_path / "test.parquet")
    assert load_data(str(tmp_path)).class_names == ("class 0", "class 1")


def test_parquet_that_cannot_be_used(tmp_path):
    good = [encode_image(image) for image in draw_grey(4)]
    path = tmp_path / "a.parquet"

    def fails(*words: str) -> None:
        with pytest.raises(DataError) as error:
            load_data(str(path))
        assert_says(error, *words)

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


def test_options_of_parquet_images(tmp_path):
    images = [encode_image(image) for image in draw_grey(8)]
    path = str(write_parquet(tmp_path / "a.parquet", images, [0, 1] * 4, label="kind"))
    data = load_data(path, label="kind", resize="6")
    assert (data.x_train.shape, data.classes) == ((6, 1, 6, 6), 2)
    with pytest.raises(DataError, match="a column image or img and a column other; there are"):
        load_data(path, label="other")
    small = load_data("mnist", data_dir=write_mnist(tmp_path / "mnist"), resize="12")
    assert small.x_train.shape[1:] == (1, 12, 12)


def test_parquet_folder_must_have_both(tmp_path):
    write_parquet(tmp_path / "train.parquet", [], [])
    with pytest.raises(DataError) as error:
        load_data(str(tmp_path))
    assert_says(error, "train*.parquet and test*.parquet", "it has train.parquet")


def test_named_set_from_a_local_copy(tmp_path):
    inside = load_data("mnist", data_dir=write_mnist(tmp_path / "data" / "mnist"))
    assert inside.name == "mnist"
    assert (inside.x_train.shape, inside.classes) == ((20, 1, 28, 28), 10)
    np.testing.assert_array_equal(inside.y_test, [7, 2, 1])
    above = load_data("mnist", data_dir=str(tmp_path / "data"))
    assert above.fingerprint() == inside.fingerprint()


def test_wrong_local_copies(tmp_path):
    with pytest.raises(DataError) as error:
        load_data("mnist", data_dir=tmp_path / "nowhere")
    assert_says(error, "nowhere must be a folder of train*.parquet", "does not exist")
    with pytest.raises(DataError) as error:
        load_data("cifar10", data_dir=write_mnist(tmp_path))
    assert_says(error, "cifar10: expected images (3, 32, 32), the copy given has (1, 28, 28)")


def test_hub(monkeypatch):
    train, pixels = make_hub_split(20, (28, 28), 10)
    asked = []

    def load_dataset(name):
        asked.append(name)
        assert datasets.are_progress_bars_disabled()
        assert not logging.getLogger("datasets").isEnabledFor(logging.ERROR)
        assert not logging.getLogger("huggingface_hub").isEnabledFor(logging.ERROR)
        return datasets.DatasetDict({"train": train, "test": train.select(range(4))})

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    data = load_data("mnist")
    assert asked == ["ylecun/mnist"]
    np.testing.assert_allclose(data.x_train[:, 0] + data.mean, pixels, atol=1e-4)
    np.testing.assert_array_equal(data.y_test, [0, 1, 2, 3])
    assert data.class_names[3] == "class 3"


def test_hub_that_cannot_be_reached(monkeypatch):
    def load_dataset(name):
        raise ConnectionError(f"Couldn't reach {name!r} on the Hub\nand much more")

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    with pytest.raises(DataError) as error:
        load_data("cifar10")
    assert_says(
        error, "cifar10: the Hugging Face hub could not be reached", "uoft-cs/cifar10", "--data-dir"
    )
