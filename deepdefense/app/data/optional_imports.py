"""Use other libraries' readers: import them when needed, silence them, convert their errors."""

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
    """Convert any error inside into a `DataError` that begins with the message.

    Libraries raise errors of many classes for broken files, so every class is converted.
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
    """Keep the datasets library silent, and yield a cache folder for it; restore both at the end.

    Progress bars, warnings and log messages are off, and nothing is sent over the network.
    """
    with tempfile.TemporaryDirectory() as cache, warnings.catch_warnings(), ExitStack() as stack:
        # The library also warns if an environment variable of the user has set its progress bars.
        warnings.simplefilter("ignore")
        for library in (import_optional("datasets"), import_optional("huggingface_hub.utils")):
            if not library.are_progress_bars_disabled():
                library.disable_progress_bars()
                stack.callback(library.enable_progress_bars)
        for logger in (logging.getLogger("datasets"), logging.getLogger("huggingface_hub")):
            stack.callback(logger.setLevel, logger.level)
            logger.setLevel(logging.CRITICAL)
        # Otherwise the library reports every load to its makers, even of local files.
        config, name = import_optional("datasets.config"), "HF_UPDATE_DOWNLOAD_COUNTS"
        stack.callback(setattr, config, name, getattr(config, name, True))
        setattr(config, name, False)
        yield cache


def import_optional(module: str) -> Any:
    """Import a module of the extra `cli`."""
    with convert_errors("a package is missing"):
        return importlib.import_module(module)
