"""Format the manifest of an evaluation for its page.

The manifest holds versions, seeds and settings, with which the evaluation can be run again.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from deepdefense.app.pages.wording import format_setting

__all__ = ["group_manifest"]


def group_manifest(manifest: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    """Return the manifest as {group: {key: text}}.

    Each top-level entry that is a mapping forms a group; the others form the group "Manifest". Keys
    of nested entries are joined by dots, as in `attacks.0.name`.
    """
    groups: dict[str, dict[str, str]] = {}
    for key, value in manifest.items():
        nested = isinstance(value, Mapping) and value
        group = groups.setdefault(key if nested else "Manifest", {})
        group.update(_flatten_manifest(value, "" if nested else key))
    return groups


def _flatten_manifest(value: Any, path: str) -> Iterator[tuple[str, str]]:
    """Yield (dotted path, text) for each entry of `value`; `path` is the dotted path of `value`."""
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
    """Format a value as `format_setting` does, but write a float with every digit."""
    text = format_setting(value)
    if isinstance(value, float) and math.isfinite(value) and float(text) != value:
        return repr(value)
    return text
