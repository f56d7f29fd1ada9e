"""Reading with others' libraries: optional, silent, and with their errors made one line."""

from __future__ import annotations

import importlib
import logging
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from deepdefense.errors import first_line_of
from deepdefense.evaluation.dataset import DataError

__all__ = ["optional", "quiet", "reading"]


@contextmanager
def reading(what: str, hint: str = "") -> Iterator[None]:
    """Says what could not be read; as libraries raise all sorts for broken files, of anything."""
    try:
        yield
    except (DataError, MemoryError):
        raise
    except Exception as error:
        if isinstance(error, ImportError):
            hint = '; pip install "deepdefense[cli]"'
        raise DataError(f"{what}: {first_line_of(error)}{hint}") from error


@contextmanager
def quiet() -> Iterator[str]:
    """The datasets library kept silent, with a cache folder for it; all is undone at the end."""
    with tempfile.TemporaryDirectory() as cache, warnings.catch_warnings(), ExitStack() as back:
        warnings.simplefilter("ignore")  # also of bars that a variable of the user's has set
        for library in (optional("datasets"), optional("huggingface_hub.utils")):
            if not library.are_progress_bars_disabled():
                library.disable_progress_bars()
                back.callback(library.enable_progress_bars)
        for logger in (logging.getLogger("datasets"), logging.getLogger("huggingface_hub")):
            back.callback(logger.setLevel, logger.level)
            logger.setLevel(logging.CRITICAL)
        # Else every load, of local files too, first tells the library's makers over the network.
        config, count = optional("datasets.config"), "HF_UPDATE_DOWNLOAD_COUNTS"
        back.callback(setattr, config, count, getattr(config, count, True))
        setattr(config, count, False)
        yield cache


def optional(module: str) -> Any:
    """A module of the extra cli, imported when it is needed."""
    with reading("a package is missing"):
        return importlib.import_module(module)
