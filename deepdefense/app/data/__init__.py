"""Data sets by name, file or folder: read, decoded, checked, split and centred."""

from deepdefense.app.data.load import load_data

__all__ = ["load_data"]
