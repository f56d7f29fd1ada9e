"""The data of the command line: read, checked, split and centred, as arrays in memory."""

from deepdefense.data.dataset import DataError, Dataset, fingerprint, from_arrays
from deepdefense.data.load import load

__all__ = ["DataError", "Dataset", "fingerprint", "from_arrays", "load"]
