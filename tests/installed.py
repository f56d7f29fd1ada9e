"""Check the installed package outside the repository, for `nox -s wheel` and `nox -s release`."""

from __future__ import annotations

import importlib.util
import sys
from importlib.metadata import files
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parent.parent


def main(frameworks: list[str]) -> None:
    import deepdefense as dd

    imported = set(frameworks) & set(sys.modules)
    assert not imported, f"import deepdefense imported {imported}"
    assert "site-packages" in str(dd.__file__), dd.__file__
    for folder in ("backends", "reference", "tests"):
        assert importlib.util.find_spec(folder) is None, f"import {folder} works"
    shipped = {str(file) for file in files("deepdefense") or ()}
    backends = [f"deepdefense_{name}" for name in (*frameworks, "numpy")]
    for package in ("deepdefense", *backends):
        assert f"{package}/py.typed" in shipped, f"{package} ships no py.typed"
    pages = ROOT / "deepdefense" / "app" / "pages"
    for file in (*pages.glob("*.j2"), *pages.glob("*.css")):
        assert file.relative_to(ROOT).as_posix() in shipped, f"{file.name} is not shipped"

    expected = {"numpy": True, "torch": False, "jax": False, "tensorflow": False}
    assert dd.available_backends() == expected, dd.available_backends()
    perturbation = dd.deepfool(
        lambda x: x @ np.array([[3.0, 0.0], [4.0, 0.0]]), np.array([[1.0, 0.5]])
    )
    np.testing.assert_allclose(perturbation.delta, [[-0.612, -0.816]])
    for name in ("torch", "jax", "tensorflow"):
        message = ""
        try:
            dd.use_backend(name)
        except ImportError as error:
            message = str(error)
        assert f'pip install "deepdefense[{name}]"' in message, message
    print(f"installed: {Path(str(dd.__file__)).parent}, all checks passed")


if __name__ == "__main__":
    main(sys.argv[1:])
