"""Data sets by name, file or folder: read, decoded, checked, split and centred."""

from deepdefense.app.data.load import load

__all__ = ["load"]
