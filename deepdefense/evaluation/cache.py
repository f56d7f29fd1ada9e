"""Results of attacks on batches, kept so that an interrupted evaluation can be resumed."""

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
    """Named sets of arrays, in a folder or wherever the caller keeps them."""

    def load(self, name: str) -> NamedArrays | None:
        """The arrays saved under that name, or None."""
        ...

    def save(self, name: str, arrays: Mapping[str, npt.NDArray[Any]], attack: str) -> None:
        """Save arrays under that name, with the attack that they are of."""
        ...


@dataclass(frozen=True)
class AttackCache:
    """The result of each attack on each batch; without a storage nothing is kept.

    `prefix` identifies the network, the examples and the settings.
    """

    storage: Storage | None = None
    prefix: str = ""

    def _key(self, attack: object, batch: npt.NDArray[Any]) -> str:
        digest = hashlib.sha256(f"{self.prefix}{attack}".encode())
        digest.update(np.ascontiguousarray(batch).data)
        return digest.hexdigest()[:16]

    def get(self, attack: object, batch: npt.NDArray[Any]) -> NamedArrays | None:
        """The kept result of the attack on the examples with these indices, or None."""
        return None if self.storage is None else self.storage.load(self._key(attack, batch))

    def put(
        self, attack: object, batch: npt.NDArray[Any], found: Mapping[str, npt.NDArray[Any]]
    ) -> None:
        """Keep the result of the attack on the examples with these indices."""
        if self.storage is not None:
            self.storage.save(self._key(attack, batch), found, str(attack))
