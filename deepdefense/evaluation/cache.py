"""A cache of attack results per batch, so that an interrupted evaluation can be resumed."""

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
    """A store of named sets of arrays, which the caller provides."""

    def load(self, name: str) -> NamedArrays | None:
        """Return the arrays saved under a name, or None."""
        ...

    def save(self, name: str, arrays: Mapping[str, npt.NDArray[Any]], attack: str) -> None:
        """Save arrays under a name; `attack` says in words which attack they belong to."""
        ...


@dataclass(frozen=True)
class AttackCache:
    """The results of attacks on batches; without a storage it is always empty.

    `prefix` identifies the network, the examples and the settings.
    """

    storage: Storage | None = None
    prefix: str = ""

    def get(self, attack: object, batch: npt.NDArray[Any]) -> NamedArrays | None:
        """Return the saved result of an attack on the examples with these indices, or None."""
        return None if self.storage is None else self.storage.load(self._key(attack, batch))

    def put(
        self, attack: object, batch: npt.NDArray[Any], result: Mapping[str, npt.NDArray[Any]]
    ) -> None:
        """Save the result of an attack on the examples with these indices."""
        if self.storage is not None:
            self.storage.save(self._key(attack, batch), result, str(attack))

    def _key(self, attack: object, batch: npt.NDArray[Any]) -> str:
        digest = hashlib.sha256(f"{self.prefix}{attack}".encode())
        digest.update(np.ascontiguousarray(batch).data)
        return digest.hexdigest()[:16]
