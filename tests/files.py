"""Write data files for tests: images, .npz and parquet files, and a small copy of MNIST."""

import io
from pathlib import Path

import numpy as np
import pytest

datasets = pytest.importorskip("datasets", reason="needs deepdefense[cli]")
pytest.importorskip("sklearn", reason="needs deepdefense[cli]")
pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")
Image = pytest.importorskip("PIL.Image", reason="needs deepdefense[cli]")


def encode_image(pixels: np.ndarray, kind: str = "PNG", **options) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, kind, **options)
    return stream.getvalue()


def draw_grey(n: int, size: tuple[int, int] = (4, 5), seed: int = 0) -> np.ndarray:
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


def assert_says(error: pytest.ExceptionInfo, *words: str) -> None:
    message = str(error.value)
    assert "\n" not in message
    for word in words:
        assert word in message, message


def write_mnist(folder: Path, size=(28, 28)) -> Path:
    images = [encode_image(image) for image in draw_grey(20, size)]
    write_parquet(folder / "train-00000-of-00001.parquet", images, [*range(10)] * 2)
    write_parquet(folder / "test-00000-of-00001.parquet", images[:3], [7, 2, 1])
    return folder


def make_hub_split(n: int, size: tuple[int, ...], classes: int):
    """Return a split with the hub's features Image and ClassLabel, and the pixels of its images."""
    names = [f"class {i}" for i in range(classes)]
    columns = {"image": datasets.Image(), "label": datasets.ClassLabel(names=names)}
    pixels = np.random.default_rng(0).integers(0, 256, (n, *size), dtype=np.uint8)
    rows = {
        "image": [{"bytes": encode_image(image), "path": None} for image in pixels],
        "label": [i % classes for i in range(n)],
    }
    return datasets.Dataset.from_dict(rows, features=datasets.Features(columns)), pixels
