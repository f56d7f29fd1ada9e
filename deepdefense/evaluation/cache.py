"""Saves the result of every attack on every batch, so that an evaluation can be resumed."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

__all__ = ["AttackCache", "Storage"]

NamedArrays = dict[str, npt.NDArray[Any]]


class Storage(Protocol):
    """The interface of a store in which `AttackCache` saves sets of arrays by name."""

    def load(self, name: str) -> NamedArrays | None:
        """Return the arrays that were saved under this name, or None if there are none."""
        ...

    def save(self, name: str, arrays: Mapping[str, npt.NDArray[Any]], attack: str) -> None:
        """Save the arrays of one attack under this name; `attack` is a text that describes it."""
        ...


@dataclass(frozen=True)
class AttackCache:
    """A cache of attack results, with one entry for each attack and batch.

    Without a `storage` the cache keeps nothing. `prefix` identifies the network, the examples and
    the settings, and is part of the key of every entry.
    """

    storage: Storage | None = None
    prefix: str = ""

    def get(self, attack: object, batch: npt.NDArray[Any]) -> NamedArrays | None:
        """Return the result of an attack on the examples with indices `batch`.

        Return None if no such result has been saved.
        """
        return None if self.storage is None else self.storage.load(self._key(attack, batch))

    def put(
        self, attack: object, batch: npt.NDArray[Any], result: Mapping[str, npt.NDArray[Any]]
    ) -> None:
        """Save the result of an attack on the examples with the indices `batch`."""
        if self.storage is not None:
            self.storage.save(self._key(attack, batch), result, str(attack))

    def _key(self, attack: object, batch: npt.NDArray[Any]) -> str:
        digest = hashlib.sha256(f"{self.prefix}{attack}".encode())
        digest.update(np.ascontiguousarray(batch).data)
        return digest.hexdigest()[:16]
