"""Deep Defense with lam, c and d that change between training runs, without a new compilation."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any

from deepdefense.defenses.deep_defense import DeepDefense
from deepdefense.seam.choosing import backend_of
from deepdefense.seam.contract import Array, Model

__all__ = ["StrengthenedDefense"]


@dataclass(frozen=True)
class StrengthenedDefense(DeepDefense):
    """A Deep Defense penalty whose lam, c and d are an array, not constants of the loss.

    Penalties that differ in `strength` alone are equal, so a framework compiles their loss once.
    """

    # lam, c and d
    strength: tuple[float, float, float] = field(default=(0.0, 0.0, 0.0), compare=False)

    @classmethod
    def from_defense(cls, defense: DeepDefense) -> StrengthenedDefense:
        """Return a penalty with the settings of `defense`, its lam, c and d as `strength`."""
        settings: dict[str, Any] = {f.name: getattr(defense, f.name) for f in fields(DeepDefense)}
        constants = {**settings, "lam": 0.0, "c": 0.0, "d": 0.0}
        return cls(**constants, strength=(defense.lam, defense.c, defense.d))

    def points(self, model: Model, x: Array, y: Array) -> tuple[Array, ...]:
        """Return lam, c and d as one array [3]."""
        return (backend_of(x, model=model).asarray(list(self.strength), x),)
