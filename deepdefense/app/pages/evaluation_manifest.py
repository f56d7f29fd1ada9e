"""The manifest of the evaluation's page: all that is needed to run the evaluation again."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from deepdefense.app.pages.wording import format_setting

__all__ = ["group_manifest"]


def group_manifest(manifest: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    """Return the manifest as flat tables: nested names are joined by dots, numbers are exact."""
    groups: dict[str, dict[str, str]] = {}
    for key, value in manifest.items():
        nested = isinstance(value, Mapping) and value
        group = groups.setdefault(key if nested else "Manifest", {})
        group.update(_flatten_manifest(value, "" if nested else key))
    return groups


def _flatten_manifest(value: Any, path: str) -> Iterator[tuple[str, str]]:
    """Yield the entries below a place in the manifest, with their paths."""
    listed = isinstance(value, Sequence) and not isinstance(value, str)
    flat = listed and not any(isinstance(part, Mapping | list | tuple) for part in value)
    if flat:
        yield path, ", ".join(map(_format_exactly, value)) or "none"
    elif isinstance(value, Mapping) or listed:
        items = value.items() if isinstance(value, Mapping) else enumerate(value)
        for key, part in items:
            yield from _flatten_manifest(part, f"{path}.{key}" if path else str(key))
        if not value:
            yield path, "none"
    else:
        yield path, _format_exactly(value)


def _format_exactly(value: Any) -> str:
    """Write a value as `format_setting` does, but a number with every digit."""
    text = format_setting(value)
    if isinstance(value, float) and math.isfinite(value) and float(text) != value:
        return repr(value)
    return text
