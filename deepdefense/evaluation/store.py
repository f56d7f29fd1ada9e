"""What attacks have found so far, on disk, so that an evaluation can be taken up again."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from deepdefense.runs import RunFolder

__all__ = ["Store"]

Arrays = dict[str, npt.NDArray[Any]]
SUFFIX = ".part.safetensors"


@dataclass(frozen=True)
class Store:
    """One file for each attack on each batch, in a run's folder; without one, nothing is kept."""

    run: RunFolder | None = None
    prefix: str = ""

    def _name(self, attack: object, batch: npt.NDArray[Any]) -> str:
        digest = hashlib.sha256(f"{self.prefix}{attack}".encode())
        digest.update(np.ascontiguousarray(batch).data)
        return f"{digest.hexdigest()[:16]}{SUFFIX}"

    def get(self, attack: object, batch: npt.NDArray[Any]) -> Arrays | None:
        """What was kept of the attack on these examples (their indices), if anything."""
        saved = None if self.run is None else self.run.load(self._name(attack, batch))
        return None if saved is None else saved[0]

    def put(
        self, attack: object, batch: npt.NDArray[Any], found: Mapping[str, npt.NDArray[Any]]
    ) -> None:
        """Keep it."""
        if self.run is not None:
            self.run.save(self._name(attack, batch), found, {"attack": str(attack)})

    def clear(self) -> None:
        """Remove all parts: the results are written."""
        if self.run is not None:
            for part in self.run.path.glob(f"*{SUFFIX}"):
                self.run.remove(part.name)
