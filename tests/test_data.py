"""Tests of loading data: errors, side effects, fingerprints, and the published data sets."""

import hashlib
import logging
import os
import socket
import struct
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest

from deepdefense.app.data import digits, load_data
from deepdefense.evaluation.dataset import DataError, Dataset
from files import (
    assert_says,
    datasets,
    draw_grey,
    encode_image,
    write_folder,
    write_mnist,
    write_npz,
    write_parquet,
)

REPOSITORY = Path(__file__).resolve().parents[1]
SHARED = REPOSITORY.parent / "shared" / "data"


def test_digits():
    data = load_data("digits")
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


def test_digits_are_those_of_scikit_learn(monkeypatch):
    images, labels = digits.read_digits()
    monkeypatch.setattr(digits, "FILE", Path("moved.csv.gz"))
    for read, expected in zip((images, labels), digits.read_digits(), strict=True):
        np.testing.assert_array_equal(read, expected, strict=True)


def test_raw_examples_give_the_input_of_the_network():
    data = load_data("digits")
    offset, divisor = data.units
    raw = data.x_test * divisor + offset
    np.testing.assert_allclose(raw, np.round(raw), atol=1e-5)
    assert (np.round(raw).min(), np.round(raw).max()) == (0, 16)


def test_options_that_do_not_apply():
    for options, words in (
        ({"label": "y"}, "digits: label is for tables"),
        ({"resize": "9"}, "digits: resize is for files of images"),
        ({"standardize": True}, "digits holds pixels, which have one unit"),
    ):
        with pytest.raises(DataError) as error:
            load_data("digits", **options)
        assert_says(error, words, "leave")


def test_digits_split_is_stratified_seeded_and_keeps_the_order():
    data = load_data("digits", seed=3)
    counts = np.bincount(np.concatenate([data.y_train, data.y_test]))
    np.testing.assert_array_equal(np.bincount(data.y_test), np.round(0.2 * counts))
    assert load_data("digits", seed=3).fingerprint() == data.fingerprint()
    assert load_data("digits", seed=4).fingerprint() != data.fingerprint()
    # Both sets keep the order of the file. Together they hold each row once.
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
    data = load_data(write_npz(tmp_path / "a.npz", x=np.arange(20.0).reshape(10, 2), y=y))
    np.testing.assert_array_equal(np.bincount(data.y_test), [1, 1])
    np.testing.assert_array_equal(np.bincount(data.y_train), [6, 1, 1])
    assert len({*data.x_train[:, 0], *data.x_test[:, 0]}) == 10


def test_unknown_sources(tmp_path):
    with pytest.raises(DataError) as error:
        load_data("minst")
    assert_says(error, "digits, mnist, cifar10, an .npz", "got 'minst', which does not exist")
    (tmp_path / "a.xls").write_text("1,2")
    with pytest.raises(DataError, match="a file of another kind"):
        load_data(str(tmp_path / "a.xls"))
    assert issubclass(DataError, ValueError)


@pytest.mark.parametrize(
    ("source", "module"),
    [("digits", "sklearn.datasets"), ("mnist", "datasets"), ("f", "PIL.Image")],
)
def test_missing_packages(tmp_path, monkeypatch, source, module):
    if source == "f":
        source = str(
            write_folder(tmp_path, {"a/1.png": draw_grey(1)[0], "b/1.png": draw_grey(1)[0]})
        )
    for name in (module.partition(".")[0], module):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(DataError) as error:
        load_data(source)
    assert_says(error, 'pip install "deepdefense[cli]"', module)


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
    # The expected bytes are literal: a fingerprint must be equal in all runs and on all machines.
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

    path = write_parquet(tmp_path / "a.parquet", map(encode_image, draw_grey(4)), [0, 1, 0, 1])
    monkeypatch.setattr(datasets.config, "HF_UPDATE_DOWNLOAD_COUNTS", True)
    before = state()
    load_data(str(path))
    path.write_bytes(b"junk")
    with pytest.raises(DataError):
        load_data(str(path))
    assert state() == before


def test_local_files_need_no_network(tmp_path, monkeypatch):
    asked = []

    def getaddrinfo(host, *others, **options):
        asked.append(host)
        raise OSError("no network")

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(datasets.config, "HF_UPDATE_DOWNLOAD_COUNTS", True)
    load_data("mnist", data_dir=write_mnist(tmp_path / "mnist"))
    folder = write_folder(tmp_path / "f", {"a/1.png": draw_grey(1)[0], "b/1.png": draw_grey(1)[0]})
    with pytest.raises(DataError, match="got 2 and 0"):
        load_data(str(folder))
    assert asked == []


def test_nothing_is_printed_or_left_on_the_disk(tmp_path):
    home, data = tmp_path / "home", tmp_path / "data"
    home.mkdir()
    names = ["train/a/1.png", "train/b/1.png", "test/a/1.png"]
    write_folder(data / "folder", dict.fromkeys(names, draw_grey(1)[0]))
    write_parquet(data / "a.parquet", map(encode_image, draw_grey(4)), [0, 1, 0, 1])
    listing = sorted(data.rglob("*"))
    program = (
        "import sys; from deepdefense.app.data import load_data; "
        "assert not {'datasets', 'PIL', 'sklearn'} & set(sys.modules); "
        f"load_data({str(data / 'a.parquet')!r}); load_data({str(data / 'folder')!r})"
    )
    keep = {key: os.environ[key] for key in ("PATH", "PYTHONPATH") if key in os.environ}
    kept = keep | {"HOME": str(home), "HF_HOME": str(home / "hf"), "TMPDIR": str(home)}
    command = [sys.executable, "-c", program]
    run = subprocess.run(command, env=kept, capture_output=True, text=True, cwd=REPOSITORY)
    assert (run.returncode, run.stdout, run.stderr) == (0, "", "")
    assert list(home.rglob("*")) == []
    assert sorted(data.rglob("*")) == listing


real_data = pytest.mark.skipif(
    not SHARED.is_dir(), reason=f"needs MNIST and CIFAR-10 as parquet files in {SHARED}"
)


@real_data
def test_real_mnist():
    data = load_data("mnist", data_dir=SHARED)
    assert (data.x_train.shape, data.x_test.shape) == ((60000, 1, 28, 28), (10000, 1, 28, 28))
    np.testing.assert_array_equal(data.y_train[:8], [5, 0, 4, 1, 9, 2, 1, 3])
    np.testing.assert_array_equal(data.y_test[:8], [7, 2, 1, 0, 4, 1, 4, 9])
    assert (data.classes, data.scale) == (10, 255.0)
    assert data.preprocessing == "pixels 0..255 minus the training mean image"
    assert np.abs(data.x_train.mean(0, dtype=float)).max() < 1e-4
    assert abs(data.mean.mean() - 33.318) < 1e-3  # the known mean pixel is 0.1307 of 255
    pixels = data.x_test[:100] + data.mean
    np.testing.assert_allclose(pixels, np.round(pixels), atol=1e-4)


@real_data
def test_real_cifar10():
    data = load_data("cifar10", data_dir=SHARED)
    assert (data.x_train.shape, data.x_test.shape) == ((50000, 3, 32, 32), (10000, 3, 32, 32))
    assert np.bincount(data.y_train).tolist() == [5000] * 10
    assert np.bincount(data.y_test).tolist() == [1000] * 10
    np.testing.assert_array_equal(data.y_train[:8], [2, 3, 9, 5, 8, 6, 6, 2])
    np.testing.assert_array_equal(data.y_test[:8], [9, 0, 2, 5, 2, 8, 5, 6])
    assert (data.classes, data.scale) == (10, 255.0)
    assert np.abs(data.x_train.mean(0, dtype=float)).max() < 1e-4
    # These are the published means of the channels. They may differ a little, as this copy is JPEG.
    np.testing.assert_allclose(data.mean.mean((1, 2)), [125.3, 123.0, 113.9], atol=0.5)
