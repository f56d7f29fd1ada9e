"""Read the handwritten digits that scikit-learn ships."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from deepdefense.app.data.optional_imports import import_optional

__all__ = ["read_digits"]

FILE = Path("datasets", "data", "digits.csv.gz")  # in the folder of scikit-learn's package


def read_digits() -> tuple[npt.NDArray[Any], npt.NDArray[np.int64]]:
    """Return the images [n 8 8], with integer pixels in 0..16, and their labels [n].

    The file is read without scikit-learn, because `import sklearn.datasets` also imports SciPy and
    pandas, which is slow. If scikit-learn keeps the file elsewhere, its own function reads it.
    """
    spec = importlib.util.find_spec("sklearn")
    path = Path(spec.origin).parent / FILE if spec and spec.origin else None
    if path is not None and path.is_file():
        table = np.loadtxt(path, delimiter=",", dtype=np.int64)
        return table[:, :-1].reshape(-1, 8, 8).astype(np.uint8), table[:, -1]
    digits = import_optional("sklearn.datasets").load_digits()
    return digits.images.astype(np.uint8), digits.target.astype(np.int64)
