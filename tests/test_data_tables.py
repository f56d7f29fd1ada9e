"""Tests of loading tables from CSV and parquet files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deepdefense.app.data import load_data
from deepdefense.evaluation.dataset import DataError
from files import assert_says, pa, pq

N = 20
COLUMNS: dict[str, Any] = {
    "age": [*range(N)],
    "height": [i / 8 + 1 for i in range(N)],
    "smokes": [i % 3 == 0 for i in range(N)],
    "class": ["ill", "well"] * (N // 2),
}
FEATURES = np.array([COLUMNS["age"], COLUMNS["height"], COLUMNS["smokes"]], np.float32).T


def write_csv(path: Path, separator: str = ",", **changes: Any) -> str:
    """Write `COLUMNS`, with some of them replaced, or left out if their replacement is None."""
    columns = {k: v for k, v in (COLUMNS | changes).items() if v is not None}
    lines = [separator.join(columns)]
    lines += [separator.join(map(str, row)) for row in zip(*columns.values(), strict=True)]
    path.write_text("\n".join(lines) + "\n")
    return str(path)


def read_all(data: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return all examples and labels in the order of the table, whose first feature counts rows."""
    x, y = (np.concatenate([getattr(data, f"{a}_train"), getattr(data, f"{a}_test")]) for a in "xy")
    order = np.argsort(x[:, 0])
    return x[order], y[order]


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_csv_with_labels_in_words(tmp_path: Path, separator: str) -> None:
    data = load_data(write_csv(tmp_path / "a.csv", separator), seed=3)
    assert (data.name, data.classes, data.class_names) == ("a", 2, ("ill", "well"))
    assert data.feature_names == ("age", "height", "smokes")
    assert (len(data.x_train), len(data.x_test), data.x_train.dtype) == (16, 4, np.float32)
    np.testing.assert_array_equal(np.bincount(data.y_test), [2, 2])
    x, y = read_all(data)
    np.testing.assert_array_equal(x, FEATURES)
    np.testing.assert_array_equal(y, [0, 1] * (N // 2))
    assert data.preprocessing == (
        "taken as they are, nothing subtracted; labels from the column class "
        "(0 is ill, 1 is well); no published split: 20 % of each class held out as the test set, "
        "seed 3"
    )


def test_parquet_tables_are_the_same_as_csv(tmp_path: Path) -> None:
    csv = load_data(write_csv(tmp_path / "a.csv"))
    for labels in (pa.array(COLUMNS["class"]), pa.array(COLUMNS["class"]).dictionary_encode()):
        pq.write_table(pa.table(COLUMNS | {"class": labels}), tmp_path / "a.parquet")
        data = load_data(str(tmp_path / "a.parquet"))
        assert data.fingerprint() == csv.fingerprint()
        assert (data.class_names, data.preprocessing) == (csv.class_names, csv.preprocessing)


@pytest.mark.parametrize("suffix", ["csv", "tsv", "parquet"])
def test_folder_of_tables_has_its_own_split(tmp_path: Path, suffix: str) -> None:
    for name, rows in (("train-0", slice(0, 8)), ("train-1", slice(8, 14)), ("test", slice(14, N))):
        part = {key: values[rows] for key, values in COLUMNS.items()}
        if name == "test":  # the columns may have another order, and there may be more of them
            part = {key: part[key] for key in reversed(part)} | {"more": [0] * 6}
        if suffix == "parquet":
            pq.write_table(pa.table(part), tmp_path / f"{name}.parquet")
        else:
            write_csv(tmp_path / f"{name}.{suffix}", "\t", **dict.fromkeys(COLUMNS) | part)
    data = load_data(str(tmp_path))
    np.testing.assert_array_equal(data.x_train, FEATURES[:14])
    np.testing.assert_array_equal(data.x_test, FEATURES[14:])
    np.testing.assert_array_equal(data.y_test, [0, 1] * 3)
    assert "no published split" not in data.preprocessing


@pytest.mark.parametrize(
    ("labels", "expected", "names"),
    [
        (["1", "3"], [1, 3], ("0", "1", "2", "3")),  # whole numbers keep their value
        (["3.0", "0.0"], [3, 0], ("0", "1", "2", "3")),
        (["-1", "1"], [0, 1], ("-1", "1")),
        (["7", "5000000"], [0, 1], ("7", "5000000")),
        (["true", "false"], [1, 0], ("False", "True")),
        (["b", "a"], [1, 0], ("a", "b")),
        (["1", "b"], [0, 1], ("1", "b")),
        (["NA", "a"], [0, 1], ("NA", "a")),
    ],
)
def test_labels_of_any_kind(tmp_path: Path, labels: Any, expected: Any, names: Any) -> None:
    data = load_data(write_csv(tmp_path / "a.csv", **{"class": labels * (N // 2)}))
    np.testing.assert_array_equal(read_all(data)[1], expected * (N // 2))
    assert (data.y_train.dtype, data.class_names) == (np.int64, names)


def test_column_of_labels_is_found_or_named(tmp_path: Path) -> None:
    path = write_csv(
        tmp_path / "a.csv", y=[1, 0] * (N // 2), **{"class": None, "Target ": [0, 1] * 10}
    )
    assert load_data(path).feature_names == ("age", "height", "smokes", "y")
    data = load_data(path, label="y")
    assert data.feature_names == ("age", "height", "smokes", "Target ")
    np.testing.assert_array_equal(read_all(data)[1], [1, 0] * (N // 2))


@pytest.mark.parametrize("name", ["", "Unnamed: 0"])
def test_row_numbers_are_left_out(tmp_path: Path, name: str) -> None:
    def load(values: list[int]) -> Any:
        path = tmp_path / "a.csv"
        write_csv(path, **{name: values})
        return load_data(str(path))

    data = load([*range(N)])
    assert data.feature_names == ("age", "height", "smokes")
    assert f"the row numbers in the column {name!r} left out" in data.preprocessing
    assert load([*range(N, 0, -1)]).feature_names == data.feature_names
    assert load([0, *range(N - 1)]).feature_names == (*data.feature_names, name)


def test_features_are_standardised_by_the_training_set(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "a.csv", zero=[7.5] * N, big=[1.6e9 + i for i in range(N)])
    raw, data = load_data(path), load_data(path, standardize=True)
    np.testing.assert_allclose(data.x_train.mean(0), 0, atol=1e-6)
    np.testing.assert_allclose(data.x_train.std(0), [1, 1, 1, 0, 1], atol=1e-6)
    np.testing.assert_array_equal(data.x_test[:, 3], 0)
    # float32 cannot tell the values of the last column apart, so it is standardised before.
    np.testing.assert_allclose(data.x_test[:, 4], data.x_test[:, 0], atol=1e-6)
    offset, divisor = data.units
    np.testing.assert_allclose(data.x_test * divisor + offset, raw.x_test, rtol=1e-5, atol=1e-6)
    assert data.preprocessing.startswith(
        "each feature minus its mean, divided by its standard deviation; labels from the column "
        "class (0 is ill, 1 is well); constant columns: zero; "
    )


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"class": None}, ["column label, class, target or y", "age, height, smokes: name it"]),
        ({"age": ["", "", *range(18)]}, ["age lacks 2 values (the first in row 1)", "fill in"]),
        ({"age": [*range(19), "?"]}, ["age holds '?' (row 20)", "encode text as numbers"]),
        ({"age": [""] * N}, ["age is empty", "drop"]),
        ({"age": ["1,5", *range(19)]}, ["could not be read as a table"]),
        ({"class": ["a"] * 19 + [""]}, ["labels in the column class lack 1 values", "row 20"]),
        ({"class": ["a"] * N}, ["two classes or more", "all training labels are 0"]),
        ({"class": ["2020-01-01"] * N}, ["must be whole numbers or text", "datetime.date"]),
        ({"class": [1.5, 2] * 10}, ["must be whole numbers or text", "got 1.5"]),
        ({"class": [*range(N)]}, ["20 different values in 20 rows", "--label"]),
        ({"age": None, "height": None, "smokes": None}, ["no column of features"]),
        ({"class": None, "1.5": [0] * N}, ["begin a CSV file with a line of the columns' names"]),
    ],
)
def test_tables_that_cannot_be_used(tmp_path: Path, changes: Any, words: list[str]) -> None:
    with pytest.raises(DataError) as error:
        load_data(write_csv(tmp_path / "a.csv", **changes))
    assert_says(error, "a", *words)


def test_files_that_are_no_table(tmp_path: Path) -> None:
    def fails(content: str | bytes, *words: str, **options: Any) -> None:
        path = tmp_path / "a.csv"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        with pytest.raises(DataError) as error:
            load_data(str(path), **options)
        assert_says(error, *words)

    fails("", "a.csv could not be read as a table")
    fails("age,y\n1,2\n1\n", "a.csv could not be read as a table")
    fails(b"gr\xf6\xdfe,y\n1,2\n", "a.csv could not be read as a table")
    fails("age,y\n", "expected examples")
    fails("age,age,y\n1,2,3\n", "two columns have the same name: age")
    fails("age,y\n1,2\n", "column kind, the columns are age, y", label="kind")
    fails("age,y\n1,0\n", "resize is for files of images", resize="8")
    write_csv(tmp_path / "train.csv")
    write_csv(tmp_path / "test.csv", age=None)
    with pytest.raises(DataError, match="the test set lacks the columns age"):
        load_data(str(tmp_path))
