"""Load data sets by name, file or folder: read, decode, check, split and centre."""

from deepdefense.app.data.load import load_data

__all__ = ["load_data"]
