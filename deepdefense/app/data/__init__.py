"""Load data sets from files or the Hugging Face hub; check, split and centre them."""

from deepdefense.app.data.load import load_data

__all__ = ["load_data"]
