"""An immutable, hashable mapping for the fields of frozen dataclasses."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Generic, TypeVar

__all__ = ["FrozenDict"]

Value = TypeVar("Value")


class FrozenDict(Mapping[str, Value], Generic[Value]):
    """An immutable mapping that keeps the order of its entries.

    It equals every mapping with the same entries. It is hashable if all its values are hashable.

    >>> settings = FrozenDict({"steps": 10, "p": 2})
    >>> settings["steps"], settings == {"p": 2, "steps": 10}
    (10, True)
    >>> hash(settings) == hash(FrozenDict(p=2, steps=10))
    True
    """

    __slots__ = ("_entries",)

    def __init__(self, entries: Mapping[str, Value] | None = None, /, **named: Value) -> None:
        self._entries: dict[str, Value] = {**(entries or {}), **named}

    def __getitem__(self, key: str) -> Value:
        return self._entries[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def __hash__(self) -> int:
        return hash(frozenset(self._entries.items()))

    def __repr__(self) -> str:
        return f"FrozenDict({self._entries!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        """Tell `pickle` and `copy` to rebuild the mapping by calling the constructor."""
        return FrozenDict, (self._entries,)
