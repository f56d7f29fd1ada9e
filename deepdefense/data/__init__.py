"""The data of the command line: read, checked, split and centred, as arrays in memory."""

from deepdefense.data.dataset import DataError, Dataset, from_arrays
from deepdefense.data.load import load

__all__ = ["DataError", "Dataset", "from_arrays", "load"]
