"""Read images from a user's parquet files, or from data sets of the Hugging Face hub."""

from __future__ import annotations

import glob
from pathlib import Path

from deepdefense.app.data.encoded_images import EncodedSplits, collect_images, open_stream
from deepdefense.app.data.optional_imports import convert_errors, import_optional, silence_datasets
from deepdefense.evaluation.dataset import DataError

__all__ = ["HUB_SETS", "load_parquet", "load_published"]

# For each name that a user may give: the name of the data set on the Hugging Face hub, and the
# shape [c h w] of its images.
HUB_SETS = {
    "mnist": ("ylecun/mnist", (1, 28, 28)),
    "cifar10": ("uoft-cs/cifar10", (3, 32, 32)),
}


def load_published(name: str, data_dir: str | Path | None) -> EncodedSplits:
    """Load a data set of `HUB_SETS` from its copy in `data_dir`.

    If `data_dir` is None, load the data set from the Hugging Face hub.
    """
    if data_dir is not None:
        folder = Path(data_dir).expanduser().resolve()
        return load_parquet(folder / name if (folder / name).is_dir() else folder)
    failed = f"{name}: the Hugging Face hub could not be reached or read"
    hint = "; --data-dir takes a local copy, a folder with train*.parquet and test*.parquet"
    with silence_datasets(), convert_errors(failed, hint):
        # Download to the hub's usual cache, where later runs find the data set.
        splits = import_optional("datasets").load_dataset(HUB_SETS[name][0])
        train, test = (
            collect_images(splits[split], f"{name} {split}") for split in ("train", "test")
        )
    return [train], [test]


def load_parquet(path: Path, label: str | None = None) -> EncodedSplits:
    """Load a .parquet file, or a folder of the files train*.parquet and test*.parquet.

    The images are in a column named image or img. The labels are in the column `label`; if it is
    None, in a column named label or fine_label.
    """
    groups = [[path], []]
    if not path.is_file():
        groups = [sorted(path.glob(f"{split}*.parquet")) for split in ("train", "test")]
        if not all(groups):
            names = ", ".join(sorted(file.name for file in path.glob("*"))[:9]) or "nothing"
            came = f"it has {names}" if path.is_dir() else "it is none or does not exist"
            raise DataError(f"{path} must be a folder of train*.parquet and test*.parquet, {came}")
    splits: EncodedSplits = ([], [])
    with silence_datasets() as cache:
        for group, split in zip(groups, splits, strict=True):
            for file in group:  # one at a time, so that an error names the file
                with convert_errors(f"{file} could not be read"):
                    # Without `batch_size`, the datasets library fails on an empty file.
                    files = open_stream("parquet", cache, glob.escape(str(file)), batch_size=1000)
                    split.append(collect_images(files["train"], str(file), label))
    return splits
