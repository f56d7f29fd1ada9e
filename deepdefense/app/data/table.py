"""Read tables: CSV and parquet files with columns of numbers and a column of labels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from deepdefense.app.data.optional_imports import convert_errors, import_optional
from deepdefense.evaluation.dataset import MAX_CLASSES, DataError, RawData, hold_out

__all__ = ["LabelledTable", "find_tables", "load_tables"]

TABLE_SUFFIXES = (".csv", ".tsv")
# The names of the column of labels, in the order in which they are looked for. Case is ignored.
LABEL_NAMES = ("label", "class", "target", "y")
# The names of a column without a name, as pandas writes it to a CSV file, reads it back and writes
# it again, and writes it to a parquet file.
INDEX_NAMES = ("", "Unnamed: 0", "__index_level_0__")

# With fewer rows per class on average, the column of labels holds something else than classes.
MIN_ROWS_PER_CLASS = 4

# The files of the training set, and those of the test set. The second list may be empty.
TableFiles = tuple[list[Path], list[Path]]


class LabelledTable(NamedTuple):
    """The features and labels of a table. `class_names` is empty if labels name themselves."""

    raw: RawData
    class_names: tuple[str, ...]


def find_tables(path: Path) -> TableFiles | None:
    """Return the files of the table in a file or a folder; None if it holds no table."""
    if path.is_file():
        is_table = path.suffix == ".parquet" and not has_images(path)
        return ([path], []) if is_table or path.suffix in TABLE_SUFFIXES else None
    for suffix in (*TABLE_SUFFIXES, ".parquet"):
        train, test = (sorted(path.glob(f"{split}*{suffix}")) for split in ("train", "test"))
        if train and test and (suffix != ".parquet" or not has_images(train[0])):
            return train, test
    return None


def load_tables(name: str, files: TableFiles, label: str | None, seed: int) -> LabelledTable:
    """Return the features and labels of the tables in files.

    Args:
        name: the name of the data set, for error messages.
        files: the files of the training set and those of the test set. If there are none of a test
            set, it is drawn from the training set with `seed`.
        label: the column of labels. None: the first column of `LABEL_NAMES` that there is.
        seed: the seed of the split.

    Raises:
        DataError: a file cannot be read, or a column is missing or cannot be used.
    """
    train, test = (_read_tables(paths) if paths else None for paths in files)
    return _split_table(name, train, test, label, seed)


def _read_tables(paths: Sequence[Path]) -> Any:
    """Read files as one pyarrow table."""
    tables = [
        _read_csv(path) if path.suffix in TABLE_SUFFIXES else _read_parquet(path) for path in paths
    ]
    if len(tables) == 1:
        return tables[0]
    with convert_errors(f"{paths[0].parent}: the files of a set must have the same columns"):
        return import_optional("pyarrow").concat_tables(tables, promote_options="permissive")


def _read_csv(path: Path) -> Any:
    """Read a file of values that are separated by commas, semicolons or tabs."""
    csv = import_optional("pyarrow.csv")
    with convert_errors(f"{path} could not be read as a table"):
        with path.open(encoding="utf-8-sig") as file:
            header = file.readline()
        delimiter = max(",;\t", key=header.count)
        return csv.read_csv(path, parse_options=csv.ParseOptions(delimiter=delimiter))


def _read_parquet(path: Path) -> Any:
    with convert_errors(f"{path} could not be read"):
        return import_optional("pyarrow.parquet").ParquetFile(path).read()


def has_images(path: Path) -> bool:
    """Return whether a parquet file holds images rather than columns of numbers and text."""
    types = import_optional("pyarrow.types")
    with convert_errors(f"{path} could not be read"):
        schema = import_optional("pyarrow.parquet").read_schema(path)
    kinds = (types.is_nested, types.is_binary, types.is_large_binary, types.is_fixed_size_binary)
    return bool({"image", "img"} & set(schema.names)) or any(
        kind(field.type) for field in schema for kind in kinds
    )


def _split_table(name: str, train: Any, test: Any, label: str | None, seed: int) -> LabelledTable:
    """Return the features and labels of pyarrow tables; `test` is None if there is no test set."""
    tables = [train] if test is None else [train, test]
    if not all(map(len, tables)):
        raise DataError(f"{name}: expected examples, a table has no row")
    label = _find_label(name, train.column_names, label)
    index = [column for column in train.column_names if _is_index(train, column)]
    features = tuple(c for c in train.column_names if c not in (label, *index))
    if not features:
        raise DataError(f"{name}: there is no column of features beside the labels {label!r}")
    for table in tables[1:]:
        if missing := [c for c in (label, *features) if c not in table.column_names]:
            raise DataError(f"{name}: the test set lacks the columns {', '.join(missing)}")
    xs = [_read_features(name, table, features) for table in tables]
    ys, class_names = _read_labels(name, [table.column(label) for table in tables], label)
    raw = hold_out(xs[0], ys[0], seed) if test is None else RawData(xs[0], ys[0], xs[1], ys[1])
    note = f"; labels from the column {label}"
    if 0 < len(class_names) <= 10:
        note += f" ({', '.join(f'{i} is {text}' for i, text in enumerate(class_names))})"
    if index:
        note += f"; the row numbers in the column {index[0]!r} left out"
    low, high = raw.x_train.min(0, initial=np.inf), raw.x_train.max(0, initial=-np.inf)
    if len(constant := np.flatnonzero(low == high)):
        note += f"; constant columns: {_join_up([features[i] for i in constant])}"
    return LabelledTable(raw._replace(note=note + raw.note, feature_names=features), class_names)


def _find_label(name: str, columns: list[str], label: str | None) -> str:
    """Return the name of the column of labels."""
    if repeated := sorted({column for column in columns if columns.count(column) > 1}):
        raise DataError(f"{name}: two columns have the same name: {_join_up(repeated)}")
    if label is None:
        lower = {column.strip().lower(): column for column in reversed(columns)}
        found = next((lower[name] for name in LABEL_NAMES if name in lower), None)
        expected = f"{', '.join(LABEL_NAMES[:-1])} or {LABEL_NAMES[-1]}"
        remedy = "name it with --label"
    else:
        found, expected, remedy = label if label in columns else None, label, "name one of these"
    if found is None:
        came = f"the columns are {_join_up([column or repr(column) for column in columns], 50)}"
        if any(map(_is_number, columns)):
            remedy += ", and begin a CSV file with a line of the columns' names"
        raise DataError(f"{name}: the labels must be in a column {expected}, {came}: {remedy}")
    return found


def _is_index(table: Any, column: str) -> bool:
    """Return whether a column has no name of its own, and has another whole number in each row."""
    if column not in INDEX_NAMES:
        return False
    values = table.column(column).to_numpy()
    return values.dtype.kind in "iu" and len(np.unique(values)) == len(values)


def _read_features(name: str, table: Any, columns: Sequence[str]) -> np.ndarray:
    """Return columns as float64 [n d]; raise `DataError` if one is not numbers or has gaps."""
    types = import_optional("pyarrow.types")
    x, wrong = np.empty((len(table), len(columns))), []
    for i, column in enumerate(columns):
        cells = table.column(column)
        if types.is_boolean(cells.type):
            cells = cells.cast("uint8")
        kinds = (types.is_integer, types.is_floating, types.is_decimal)
        if not any(kind(cells.type) for kind in kinds):
            wrong.append(f"{column} {_describe_text(cells)}")
            continue
        x[:, i] = cells.cast("float64", safe=False).to_numpy()  # a missing value becomes NaN
        if len(gaps := np.flatnonzero(np.isnan(x[:, i]))):
            wrong.append(f"{column} lacks {len(gaps)} values (the first in row {gaps[0] + 1})")
    if wrong:
        raise DataError(
            f"{name}: the features must be numbers without missing values, but {_join_up(wrong)}: "
            "encode text as numbers, fill in what is missing, or drop these columns or rows"
        )
    return x


def _describe_text(cells: Any) -> str:
    """Return what is wrong with a column that does not hold numbers."""
    values = cells.to_pylist()
    if all(value is None for value in values):
        return "is empty"
    row = next(i for i, value in enumerate(values) if not _is_number(value))
    return f"holds {values[row]!r} (row {row + 1})"


def _is_number(value: Any) -> bool:
    try:
        float(value)
    except (TypeError, ValueError):
        return value is None
    return True


def _read_labels(
    name: str, columns: Sequence[Any], label: str
) -> tuple[list[np.ndarray], tuple[str, ...]]:
    """Return the labels of each table as int64 [n], and the names of the classes.

    Whole numbers from 0 on stay as they are, and have no names. All other labels are numbered in
    increasing order.
    """
    where = f"{name}: the labels in the column {label}"
    parts = [np.array(column.to_pylist(), dtype=object) for column in columns]
    values = np.concatenate(parts)
    gaps = [i for i, value in enumerate(values) if value in (None, "") or value != value]
    if gaps:
        raise DataError(f"{where} lack {len(gaps)} values (the first in row {gaps[0] + 1})")
    if isinstance(next(iter(values), None), bool):
        keys = values.astype(str)
    elif all(map(_is_whole, values)):
        keys = values.astype(np.int64)
    elif all(isinstance(value, str) for value in values):
        keys = values.astype(str)
    else:
        odd = next(value for value in values if not _is_whole(value))
        raise DataError(f"{where} must be whole numbers or text, a class for each row, got {odd!r}")
    names, numbers = np.unique(keys, return_inverse=True)
    if MIN_ROWS_PER_CLASS * len(names) > len(values):
        came = f"{len(names)} different values in {len(values)} rows"
        raise DataError(f"{where} must name a few classes, got {came}: name another with --label")
    class_names = tuple(map(str, names))
    if keys.dtype.kind == "i" and keys.min() >= 0 and keys.max() < MAX_CLASSES:
        numbers, class_names = keys, ()
    ends = np.cumsum([len(part) for part in parts])[:-1]
    return np.split(numbers.astype(np.int64), ends), class_names


def _is_whole(value: Any) -> bool:
    """Return whether a value is a whole number, or text that consists of digits."""
    if isinstance(value, str):
        return value.isdecimal()
    return _is_number(value) and float(value).is_integer()


def _join_up(words: Sequence[str], limit: int = 9) -> str:
    """Join words by commas, and leave out all after the first `limit`."""
    more = [f"and {len(words) - limit} more"] if len(words) > limit else []
    return ", ".join([*words[:limit], *more])
