"""Import the optional libraries that read data, silence their output, and convert their errors."""

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

__all__ = ["convert_errors", "import_optional", "silence_datasets"]


@contextmanager
def convert_errors(message: str, hint: str = "") -> Iterator[None]:
    """Convert every error raised in the `with` block into a `DataError` that begins with `message`.

    `MemoryError` and `DataError` are not converted.
    """
    try:
        yield
    except (DataError, MemoryError):
        raise
    except Exception as error:
        if isinstance(error, ImportError):
            hint = '; pip install "deepdefense[cli]"'
        raise DataError(f"{message}: {first_line_of(error)}{hint}") from error


@contextmanager
def silence_datasets() -> Iterator[str]:
    """Silence the datasets library in the `with` block, and yield a temporary cache folder for it.

    The library shows no progress bars, warnings or log messages, and sends no usage reports over
    the network.
    """
    with tempfile.TemporaryDirectory() as cache, warnings.catch_warnings(), ExitStack() as stack:
        # The library warns if an environment variable overrides the calls below.
        warnings.simplefilter("ignore")
        for library in (import_optional("datasets"), import_optional("huggingface_hub.utils")):
            if not library.are_progress_bars_disabled():
                library.disable_progress_bars()
                stack.callback(library.enable_progress_bars)
        for logger in (logging.getLogger("datasets"), logging.getLogger("huggingface_hub")):
            stack.callback(logger.setLevel, logger.level)
            logger.setLevel(logging.CRITICAL)
        # By default the library reports even a load of local files to the Hugging Face hub.
        config, name = import_optional("datasets.config"), "HF_UPDATE_DOWNLOAD_COUNTS"
        stack.callback(setattr, config, name, getattr(config, name, True))
        setattr(config, name, False)
        yield cache


def import_optional(module: str) -> Any:
    """Import a module that the extra `cli` installs; raise `DataError` if it is missing."""
    with convert_errors("a package is missing"):
        return importlib.import_module(module)
