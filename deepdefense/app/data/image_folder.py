"""Read a folder of images that has a sub-folder for each class."""

from __future__ import annotations

import glob
from pathlib import Path

from deepdefense.app.data.encoded_images import EncodedSplits, collect_images, open_stream
from deepdefense.app.data.optional_imports import convert_errors, silence_datasets
from deepdefense.evaluation.dataset import DataError

__all__ = ["load_image_folder"]


def load_image_folder(root: Path) -> EncodedSplits:
    """Load images from the sub-folders of `root`, one sub-folder for each class.

    If `root` holds train/ and one of test/, val/ and validation/, then train/ is the training set
    and the other folder is the test set. Each of the two has a sub-folder for each class.
    """
    held_out = [name for name in ("test", "val", "validation") if (root / name).is_dir()]
    # The default patterns of the datasets library would also assign images to splits by the names
    # of their files.
    patterns = {"train": "*/**"}
    if held_out and (root / "train").is_dir():
        patterns = {"train": "train/*/**", "test": f"{held_out[0]}/*/**"}
    classes = "a sub-folder of images for each class, two or more and all at one depth"
    expected = f"{root} must hold {classes}, or train and test folders of these"
    with silence_datasets() as cache, convert_errors(expected):
        splits = open_stream("imagefolder", cache, patterns, data_dir=glob.escape(str(root)))
        if "label" not in splits["train"].features:
            raise DataError(f"{expected}; found no images or no classes")
        parts = [collect_images(splits[split], f"{root} ({split})") for split in patterns]
    return parts[:1], parts[1:]
